# Products by plain WebAssembly SIMD with a panel of 8 columns.
#
# By hand, for a loop's counters and addresses are a fourth of what a processor takes in here, and unrolled by a compiler
# all loads come first: more than there are registers.

.macro next address, bytes
  local.get \address
  i32.const \bytes
  i32.add
  local.set \address
.endm

# Four rows, for products of few.
#
# The function's parameters: 0 rows of activations, 1 from one to the next, 2 the panel, 3 sums, of each row two vectors, to
# be added to, 4 how many eights of the depth, at least one. Its locals: 5 to 7 the other rows, 8 and 9 weights, 10
# activations, 11 to 18 the sums.

# Adds the products of a row's two next activations.
.macro plain_row address, at, first, second
  local.get 8
  local.get \address
  v128.load32_splat \at
  local.tee 10
  i32x4.dot_i16x8_s
  local.get \first
  i32x4.add
  local.set \first
  local.get 9
  local.get 10
  i32x4.dot_i16x8_s
  local.get \second
  i32x4.add
  local.set \second
.endm

# Of all rows.
.macro two at, first, second
  local.get 2
  i16x8.load8x8_s \first
  local.set 8
  local.get 2
  i16x8.load8x8_s \second
  local.set 9
  plain_row 0, \at, 11, 12
  plain_row 5, \at, 13, 14
  plain_row 6, \at, 15, 16
  plain_row 7, \at, 17, 18
.endm

.macro load sums, at
  local.get 3
  v128.load \at
  local.set \sums
.endm

.macro store sums, at
  local.get 3
  local.get \sums
  v128.store \at
.endm

  .globl pagebert_eights
  .type pagebert_eights,@function
pagebert_eights:
  .functype pagebert_eights (i32, i32, i32, i32, i32) -> ()
  .local i32, i32, i32, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128
  local.get 0
  local.get 1
  i32.add
  local.tee 5
  local.get 1
  i32.add
  local.tee 6
  local.get 1
  i32.add
  local.set 7
  load 11, 0
  load 12, 16
  load 13, 32
  load 14, 48
  load 15, 64
  load 16, 80
  load 17, 96
  load 18, 112
  loop
  two 0, 0, 8
  two 4, 16, 24
  two 8, 32, 40
  two 12, 48, 56
  next 0, 16
  next 5, 16
  next 6, 16
  next 7, 16
  next 2, 64
  local.get 4
  i32.const -1
  i32.add
  local.tee 4
  br_if 0
  end_loop
  store 11, 0
  store 12, 16
  store 13, 32
  store 14, 48
  store 15, 64
  store 16, 80
  store 17, 96
  store 18, 112
  end_function

# Many rows with a widened panel: simd128.rs says of what. Three at a time, as with a fourth there would be too few
# registers.
#
# A function's parameters: 0 rows of activations, 1 from one to the next, 2 the panel, 3 starts, 4 from one row's to the
# next, 5 from the first four columns' to the others', 6 what is added to all starts, 7 sums, 8 from one row to the next,
# 9 how many sixteens of the depth, 10 how many blocks of rows; of both at least one. Its locals: 11 to 13 the rows, 14 the
# panel, 15 sixteens left, 16 to 19 weights, 20 and 21 activations, 22 to 27 the sums.

# Adds what a row's four next activations make of half of the columns.
.macro half weights, weights_across, sums
  local.get 20
  local.get \weights_across
  i16x8.add
  local.get 21
  local.get \weights
  i16x8.add
  i32x4.dot_i16x8_s
  local.get \sums
  i32x4.add
  local.set \sums
.endm

.macro row address, first, second, left, right
  local.get \address
  v128.load32_splat \first
  local.set 20
  local.get \address
  v128.load32_splat \second
  local.set 21
  half 16, 18, \left
  half 17, 19, \right
.endm

.macro weights local, at
  local.get 14
  v128.load \at
  local.set \local
.endm

# Of all rows: where their activations lie, and the panel's weights.
.macro four rows, first, second, a, b, c, d
  weights 16, \a
  weights 17, \b
  weights 18, \c
  weights 19, \d
  row 11, \first, \second, 22, 23
  row 12, \first, \second, 24, 25
  .if \rows > 2
  row 13, \first, \second, 26, 27
  .endif
.endm

# To a row that lies so many bytes further.
.macro skip address, stride
  local.get \address
  local.get \stride
  i32.add
  local.set \address
.endm

.macro take left, right
  local.get 3
  v128.load 0
  local.get 6
  v128.load 0
  i32x4.add
  local.set \left
  local.get 3
  local.get 5
  i32.add
  v128.load 0
  local.get 6
  v128.load 16
  i32x4.add
  local.set \right
  skip 3, 4
.endm

.macro put left, right
  local.get 7
  local.get \left
  v128.store 0
  local.get 7
  local.get \right
  v128.store 16
  skip 7, 8
.endm

.macro rows name, count
  .globl \name
  .type \name,@function
\name:
  .functype \name (i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32) -> ()
  .local i32, i32, i32, i32, i32, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128
  loop
  local.get 0
  local.set 11
  skip 0, 1
  take 22, 23
  local.get 0
  local.set 12
  skip 0, 1
  take 24, 25
  .if \count > 2
  local.get 0
  local.set 13
  skip 0, 1
  take 26, 27
  .endif
  local.get 2
  local.set 14
  local.get 9
  local.set 15
  loop
  four \count, 0, 4, 0, 16, 32, 48
  four \count, 8, 12, 64, 80, 96, 112
  four \count, 16, 20, 128, 144, 160, 176
  four \count, 24, 28, 192, 208, 224, 240
  next 11, 32
  next 12, 32
  .if \count > 2
  next 13, 32
  .endif
  next 14, 256
  local.get 15
  i32.const -1
  i32.add
  local.tee 15
  br_if 0
  end_loop
  put 22, 23
  put 24, 25
  .if \count > 2
  put 26, 27
  .endif
  local.get 10
  i32.const -1
  i32.add
  local.tee 10
  br_if 0
  end_loop
  end_function
.endm

rows pagebert_rows_2, 2
rows pagebert_rows_3, 3
