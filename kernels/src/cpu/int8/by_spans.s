# Products of whole spans, whose sums fit 16 bits, by WebAssembly's relaxed SIMD.
#
# By hand, for engines take instructions in the order in which they come, and a compiler puts all loads of a long body
# first: more than there are registers. Here an activation is loaded where it is needed, once for both halves of the
# columns, as loads are what processors have too few of.
#
# A function's parameters: 0 rows of activations, 1 from one to the next, 2 a panel of 8 columns, 3 sums, of each row two
# vectors, to be added to, 4 how many spans, at least one. Its locals: 5 to 7 the other rows, 8 and 9 weights, 10
# activations, 11 to 18 sums of a span, of each row two.

# Adds the products of a row's four next activations.
.macro row address, k, first, second
  local.get 8
  local.get \address
  v128.load32_splat \k
  local.tee 10
  i16x8.relaxed_dot_i8x16_i7x16_s
  .if \k
  local.get \first
  i16x8.add
  .endif
  local.set \first
  local.get 9
  local.get 10
  i16x8.relaxed_dot_i8x16_i7x16_s
  .if \k
  local.get \second
  i16x8.add
  .endif
  local.set \second
.endm

# Of all rows.
.macro four rows, k, first, second
  local.get 2
  v128.load \first
  local.set 8
  local.get 2
  v128.load \second
  local.set 9
  row 0, \k, 11, 12
  .if \rows > 1
  row 5, \k, 13, 14
  .endif
  .if \rows > 2
  row 6, \k, 15, 16
  .endif
  .if \rows > 3
  row 7, \k, 17, 18
  .endif
.endm

# Adds a span's sums to those in memory.
.macro widen sums, at
  local.get 3
  local.get \sums
  i32x4.extadd_pairwise_i16x8_s
  local.get 3
  v128.load \at
  i32x4.add
  v128.store \at
.endm

.macro advance address, bytes
  local.get \address
  i32.const \bytes
  i32.add
  local.set \address
.endm

.macro spans name, rows
  .globl \name
  .type \name,@function
\name:
  .functype \name (i32, i32, i32, i32, i32) -> ()
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
  loop
  four \rows, 0, 0, 16
  four \rows, 4, 32, 48
  four \rows, 8, 64, 80
  four \rows, 12, 96, 112
  four \rows, 16, 128, 144
  four \rows, 20, 160, 176
  four \rows, 24, 192, 208
  four \rows, 28, 224, 240
  widen 11, 0
  widen 12, 16
  advance 0, 32
  .if \rows > 1
  widen 13, 32
  widen 14, 48
  advance 5, 32
  .endif
  .if \rows > 2
  widen 15, 64
  widen 16, 80
  advance 6, 32
  .endif
  .if \rows > 3
  widen 17, 96
  widen 18, 112
  advance 7, 32
  .endif
  advance 2, 256
  local.get 4
  i32.const -1
  i32.add
  local.tee 4
  br_if 0
  end_loop
  end_function
.endm

spans pagebert_spans_1, 1
spans pagebert_spans_2, 2
spans pagebert_spans_3, 3
spans pagebert_spans_4, 4
