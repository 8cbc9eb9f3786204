# GELU of a row's integer products, by WebAssembly SIMD: `exact.rs` has the curve, and `finish.rs` what a product is.
#
# By hand, for two vectors take turns here at each step. A compiler goes through one's whole chain of operations before the
# other's, and a processor, which has few of them waiting, is then busy for less than half of the time.
#
# The function's parameters: 0 integers, 1 sums of weights, 2 scales, 3 biases, 4 where numbers go, 5 the row's zero point,
# 6 its scale, 7 how many eights of columns, at least one, 8 the curve's constants, four times each, 9 the four least and
# 10 the four largest numbers, which take up what comes out. Its locals: 11 and 12 x, 13 and 14 that within the curve's
# range, 15 and 16 its square, 17 and 18 the polynomial, 19 a constant, 20 the least, 21 the largest, 22 zero points,
# 23 scales.

.macro constant at
  local.get 8
  v128.load \at
  local.set 19
.endm

.macro product x, at
  local.get 0
  v128.load \at
  local.get 22
  local.get 1
  v128.load \at
  i32x4.mul
  i32x4.sub
  f32x4.convert_i32x4_s
  local.get 23
  local.get 2
  v128.load \at
  f32x4.mul
  f32x4.mul
  local.get 3
  v128.load \at
  f32x4.add
  local.set \x
.endm

# to = from op other
.macro of operation, to, from, other
  local.get \from
  local.get \other
  \operation
  local.set \to
.endm

.macro both operation, a_to, b_to, a, b, a_other, b_other
  of \operation, \a_to, \a, \a_other
  of \operation, \b_to, \b, \b_other
.endm

# p · u + the next constant
.macro step at
  constant \at
  both f32x4.mul, 17, 18, 17, 18, 15, 16
  both f32x4.add, 17, 18, 17, 18, 19, 19
.endm

.macro onward address
  local.get \address
  i32.const 32
  i32.add
  local.set \address
.endm

  .globl pagebert_gelu
  .type pagebert_gelu,@function
pagebert_gelu:
  .functype pagebert_gelu (i32, i32, i32, i32, i32, i32, f32, i32, i32, i32, i32) -> ()
  .local v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128
  local.get 5
  i32x4.splat
  local.set 22
  local.get 6
  f32x4.splat
  local.set 23
  local.get 9
  v128.load 0
  local.set 20
  local.get 10
  v128.load 0
  local.set 21
  loop
  product 11, 0
  product 12, 16
  constant 0
  both f32x4.pmax, 11, 12, 11, 12, 19, 19
  constant 16
  both f32x4.pmin, 13, 14, 11, 12, 19, 19
  both f32x4.mul, 15, 16, 13, 14, 13, 14
  constant 32
  both f32x4.mul, 17, 18, 15, 16, 19, 19
  constant 48
  both f32x4.add, 17, 18, 17, 18, 19, 19
  step 64
  step 80
  step 96
  step 112
  step 128
  step 144
  both f32x4.mul, 17, 18, 17, 18, 13, 14
  constant 160
  both f32x4.add, 17, 18, 17, 18, 19, 19
  both f32x4.mul, 11, 12, 11, 12, 17, 18
  local.get 4
  local.get 11
  v128.store 0
  local.get 4
  local.get 12
  v128.store 16
  of f32x4.pmin, 20, 20, 11
  of f32x4.pmax, 21, 21, 11
  of f32x4.pmin, 20, 20, 12
  of f32x4.pmax, 21, 21, 12
  onward 0
  onward 1
  onward 2
  onward 3
  onward 4
  local.get 7
  i32.const -1
  i32.add
  local.tee 7
  br_if 0
  end_loop
  local.get 9
  local.get 20
  v128.store 0
  local.get 10
  local.get 21
  v128.store 0
  end_function
