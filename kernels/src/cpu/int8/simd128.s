# Products by plain WebAssembly SIMD, four rows with a panel of 8 columns.
#
# By hand, for a loop's counters and addresses are a fourth of what a processor takes in here, and unrolled by a compiler
# all loads come first: more than there are registers.
#
# A function's parameters: 0 rows of activations, 1 from one to the next, 2 the panel, 3 sums, of each row two vectors, to
# be added to, 4 how many eights of the depth, at least one. Its locals: 5 to 7 the other rows, 8 and 9 weights, 10
# activations, 11 to 18 the sums.

# Adds the products of a row's two next activations.
.macro row address, at, first, second
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
  row 0, \at, 11, 12
  row 5, \at, 13, 14
  row 6, \at, 15, 16
  row 7, \at, 17, 18
.endm

.macro take sums, at
  local.get 3
  v128.load \at
  local.set \sums
.endm

.macro put sums, at
  local.get 3
  local.get \sums
  v128.store \at
.endm

.macro advance address, bytes
  local.get \address
  i32.const \bytes
  i32.add
  local.set \address
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
  take 11, 0
  take 12, 16
  take 13, 32
  take 14, 48
  take 15, 64
  take 16, 80
  take 17, 96
  take 18, 112
  loop
  two 0, 0, 8
  two 4, 16, 24
  two 8, 32, 40
  two 12, 48, 56
  advance 0, 16
  advance 5, 16
  advance 6, 16
  advance 7, 16
  advance 2, 64
  local.get 4
  i32.const -1
  i32.add
  local.tee 4
  br_if 0
  end_loop
  put 11, 0
  put 12, 16
  put 13, 32
  put 14, 48
  put 15, 64
  put 16, 80
  put 17, 96
  put 18, 112
  end_function
