"""Operations on tiles: transposed blocks of rows that fit in cache."""
