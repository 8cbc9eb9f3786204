# Numbers become integers of 7 bits, and scores probabilities, by WebAssembly SIMD: `int8/rows.rs` and `int8/short.rs` say
# how.
#
# By hand, for a compiler that knows integers to be small makes of an instruction that narrows them four others, or takes
# them lane by lane, and one that does not know it makes others besides.

# Numbers times a factor, rounded; gives their sum.
#
# A function's parameters: 0 numbers, 1 where integers go, 2 what numbers are multiplied by, 3 the zero point, 4 how many
# sixteens, at least one, 5 constants, four times each: what rounds, that and the largest integer, and the lower bits. Its
# locals: 6 to 8 these, 9 and 10 factors and zero points, 11 to 14 integers, 15 the sum.

.macro keep at, to
  local.get 5
  v128.load \at
  local.set \to
.endm

.macro integer at, to
  local.get 0
  v128.load \at
  local.get 9
  f32x4.mul
  local.get 6
  f32x4.add
  local.get 10
  f32x4.add
  local.get 6
  f32x4.pmax
  local.get 7
  f32x4.pmin
  local.get 8
  v128.and
  local.tee \to
  local.get 15
  i32x4.add
  local.set 15
.endm

# Leaves four integers' sum on the stack.
.macro sum_of four
  local.get \four
  i32x4.extract_lane 0
  local.get \four
  i32x4.extract_lane 1
  i32.add
  local.get \four
  i32x4.extract_lane 2
  i32.add
  local.get \four
  i32x4.extract_lane 3
  i32.add
.endm

.macro narrow a, b
  local.get \a
  local.get \b
  i16x8.narrow_i32x4_s
.endm

# Sixteen integers, of 8 or of 16 bits, to where they go.
.macro put_integers bits, a, b, c, d
  local.get 1
  narrow \a, \b
  .if \bits > 8
  v128.store 0
  local.get 1
  narrow \c, \d
  v128.store 16
  .else
  narrow \c, \d
  i8x16.narrow_i16x8_u
  v128.store 0
  .endif
.endm

# So many bytes further, and again if anything is left.
.macro again from, to
  local.get 0
  i32.const \from
  i32.add
  local.set 0
  local.get 1
  i32.const \to
  i32.add
  local.set 1
  local.get 4
  i32.const -1
  i32.add
  local.tee 4
  br_if 0
.endm

.macro quantise name, bits, bytes
  .globl \name
  .type \name,@function
\name:
  .functype \name (i32, i32, f32, f32, i32, i32) -> (i32)
  .local v128, v128, v128, v128, v128, v128, v128, v128, v128, v128
  keep 0, 6
  keep 16, 7
  keep 32, 8
  local.get 2
  f32x4.splat
  local.set 9
  local.get 3
  f32x4.splat
  local.set 10
  loop
  integer 0, 11
  integer 16, 12
  integer 32, 13
  integer 48, 14
  put_integers \bits, 11, 12, 13, 14
  again 64, \bytes
  end_loop
  sum_of 15
  end_function
.endm

quantise pagebert_to_bytes, 8, 16
quantise pagebert_to_words, 16, 32

# Scores become probabilities: 127 · 2^((score − the largest) · scale).
#
# The parameters of what makes integers of them, whose sum it gives: 0 scores, 1 where integers go, 2 the largest score, 3
# the scale, 4 how many sixteens, at least one, 5 constants, four times each: the least exponent, what rounds, 127 as an
# integer, and the polynomial's coefficients from the highest. Locals: 6 to 8 the first three of these, 9 and 10 the
# largest and scales, 11 to 14 integers, 15 an exponent, 16 the same rounded, 17 the rest, 18 the sum.

.macro horner at
  local.get 17
  f32x4.mul
  local.get 5
  v128.load \at
  f32x4.add
.endm

# Leaves it on the stack.
.macro probability at
  local.get 0
  v128.load \at
  local.get 9
  f32x4.sub
  local.get 10
  f32x4.mul
  local.get 6
  f32x4.pmax
  local.tee 15
  local.get 7
  f32x4.add
  local.set 16
  local.get 15
  local.get 16
  local.get 7
  f32x4.sub
  f32x4.sub
  local.set 17
  local.get 5
  v128.load 48
  horner 64
  horner 80
  horner 96
  local.get 16
  local.get 8
  i32x4.add
  i32.const 23
  i32x4.shl
  f32x4.mul
.endm

.macro whole_probability at, to
  probability \at
  local.get 7
  f32x4.add
  local.get 8
  v128.and
  local.tee \to
  local.get 18
  i32x4.add
  local.set 18
.endm

.macro probabilities name, bits, bytes
  .globl \name
  .type \name,@function
\name:
  .functype \name (i32, i32, f32, f32, i32, i32) -> (i32)
  .local v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128
  keep 0, 6
  keep 16, 7
  keep 32, 8
  local.get 2
  f32x4.splat
  local.set 9
  local.get 3
  f32x4.splat
  local.set 10
  loop
  whole_probability 0, 11
  whole_probability 16, 12
  whole_probability 32, 13
  whole_probability 48, 14
  put_integers \bits, 11, 12, 13, 14
  again 64, \bytes
  end_loop
  sum_of 18
  end_function
.endm

probabilities pagebert_probabilities_to_bytes, 8, 16
probabilities pagebert_probabilities_to_words, 16, 32

# Scores become probabilities in their place; gives their sum, of sixteen lanes that are added by halves.
#
# The function's parameters: 0 scores, 1 the same, 2 the least number there is, 3 the scale, 4 how many sixteens, at least
# one, 5 constants as above. Its locals are as above, but for 11 to 14, sums, 18 and 19, how many sixteens and scores again,
# and 20 to 23, the largest scores.

.macro larger at, to
  local.get \to
  local.get 0
  v128.load \at
  f32x4.pmax
  local.set \to
.endm

.macro add_probability at, to
  local.get 1
  probability \at
  local.tee 15
  v128.store \at
  local.get \to
  local.get 15
  f32x4.add
  local.set \to
.endm

# Leaves one number of sixteen on the stack.
.macro by_halves operation, a, b, c, d
  local.get \a
  local.get \c
  \operation
  local.get \b
  local.get \d
  \operation
  \operation
  local.tee 15
  local.get 15
  local.get 15
  i8x16.shuffle 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15
  \operation
  local.tee 15
  local.get 15
  local.get 15
  i8x16.shuffle 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7
  \operation
  f32x4.extract_lane 0
.endm

  .globl pagebert_softmax
  .type pagebert_softmax,@function
pagebert_softmax:
  .functype pagebert_softmax (i32, i32, f32, f32, i32, i32) -> (f32)
  .local v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, i32, i32, v128, v128, v128, v128
  local.get 0
  local.set 19
  local.get 4
  local.set 18
  keep 0, 6
  keep 16, 7
  keep 32, 8
  local.get 3
  f32x4.splat
  local.set 10
  local.get 2
  f32x4.splat
  local.tee 20
  local.tee 21
  local.tee 22
  local.set 23
  loop
  larger 0, 20
  larger 16, 21
  larger 32, 22
  larger 48, 23
  again 64, 0
  end_loop
  by_halves f32x4.pmax, 20, 21, 22, 23
  f32x4.splat
  local.set 9
  local.get 19
  local.set 0
  local.get 18
  local.set 4
  loop
  add_probability 0, 11
  add_probability 16, 12
  add_probability 32, 13
  add_probability 48, 14
  again 64, 64
  end_loop
  by_halves f32x4.add, 11, 12, 13, 14
  end_function
