//! The optimizer in ordinary operations, for devices that have no fused one.
//!
//! Parameters go through it in groups, end to end in one row: a graphics card takes longer to be
//! told of an operation than most parameters' elements take.

use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, Var, bail};

use super::Update;

/// The most elements in a group of several parameters: what is made of a group on the way has ten
/// times its size.
const MOST: usize = 1 << 22;

/// A row of elements is this many times as long as some number: cards add up such rows of numbers
/// side by side, and a long one by a single of their processors.
const ROW: usize = 1024;

/// Parameters that are updated alike.
pub(super) struct Group {
    members: Vec<Member>,
    pub(super) decays: bool,
    /// Running means of the gradient and of its square, `[n]`.
    mean: Tensor,
    square: Tensor,
}

struct Member {
    name: String,
    var: Var,
    first: usize,
}

/// A step's gradient of a group, `[n]`, and its elements' squares.
pub(super) struct Gradient {
    values: Tensor,
    squares: Tensor,
}

impl Group {
    /// Puts parameters on one device into groups, in their order.
    pub(super) fn of(params: Vec<(String, Var, bool)>) -> Result<Vec<Group>> {
        let mut parts: Vec<(Vec<Member>, bool, usize)> = Vec::new();
        for (name, var, decays) in params {
            let count = var.elem_count();
            match parts.iter_mut().rfind(|(_, d, n)| *d == decays && *n + count <= MOST) {
                Some((members, _, n)) => {
                    members.push(Member { name, var, first: *n });
                    *n += count;
                }
                None => parts.push((vec![Member { name, var, first: 0 }], decays, count)),
            }
        }
        let group = |(members, decays, n): (Vec<Member>, bool, usize)| {
            let device = members[0].var.device();
            let zeros = Tensor::zeros(n.next_multiple_of(ROW), DType::F32, device)?;
            Ok(Group { members, decays, mean: zeros.clone(), square: zeros })
        };
        parts.into_iter().map(group).collect()
    }

    /// Parameters' values, or what stands for them, end to end, and zeros up to a whole row.
    fn joined(&self, mut part: impl FnMut(&Member) -> Result<Tensor>) -> Result<Tensor> {
        let mut parts = Vec::with_capacity(self.members.len() + 1);
        let mut n = 0;
        for member in &self.members {
            let part = part(member)?.detach();
            if part.shape() != member.var.shape() {
                bail!("{}: {:?} for a parameter of {:?}", member.name, part, member.var.shape());
            }
            let part = part.to_dtype(DType::F32)?.flatten_all()?;
            n += part.elem_count();
            parts.push(part);
        }
        if n < self.mean.elem_count() {
            parts.push(self.mean.zeros_like()?.narrow(0, n, self.mean.elem_count() - n)?);
        }
        Tensor::cat(&parts, 0)
    }

    /// A member's part of a row, in its shape.
    fn part(row: &Tensor, member: &Member) -> Result<Tensor> {
        row.narrow(0, member.first, member.var.elem_count())?.reshape(member.var.shape())
    }

    /// # Errors
    /// When a parameter has no gradient.
    pub(super) fn gradient(&self, grads: &GradStore) -> Result<Gradient> {
        let values = self.joined(|member| match grads.get(&member.var) {
            Some(grad) => Ok(grad.clone()),
            None => bail!("parameter {} has no gradient", member.name),
        })?;
        let squares = values.sqr()?;
        Ok(Gradient { values, squares })
    }

    /// One step.
    pub(super) fn update(&mut self, update: &Update, gradient: &Gradient) -> Result<()> {
        let Update { beta1, beta2, eps, scale, shrink, step_size, root_correction } = *update;
        let Gradient { values, squares } = gradient;
        self.mean = ((&self.mean * beta1)? + (values * ((1.0 - beta1) * scale))?)?;
        self.square = ((&self.square * beta2)? + (squares * ((1.0 - beta2) * scale * scale))?)?;
        let denominator = self.square.sqrt()?.affine(1.0 / root_correction, eps)?;
        let change = ((&self.mean / denominator)? * step_size)?;
        let before = self.joined(|member| Ok(member.var.as_tensor().clone()))?;
        let after = ((before * shrink)? - change)?;
        for member in &self.members {
            member.var.set(&Self::part(&after, member)?)?;
        }
        Ok(())
    }

    /// The state: (name, mean, mean square), each of its parameter's shape.
    pub(super) fn state(&self) -> Result<Vec<(String, Tensor, Tensor)>> {
        let state = |member: &Member| {
            let (mean, square) =
                (Self::part(&self.mean, member)?, Self::part(&self.square, member)?);
            Ok((member.name.clone(), mean, square))
        };
        self.members.iter().map(state).collect()
    }

    /// Takes up a saved state.
    pub(super) fn restore(
        &mut self,
        find: &mut impl FnMut(&str) -> Result<(Tensor, Tensor)>,
    ) -> Result<()> {
        let mut squares = Vec::with_capacity(self.members.len());
        let mean = self.joined(|member| {
            let (mean, square) = find(&member.name)?;
            squares.push(square.to_device(member.var.device())?);
            mean.to_device(member.var.device())
        })?;
        let mut squares = squares.into_iter();
        let square = self.joined(|member| match squares.next() {
            Some(square) => Ok(square),
            None => bail!("{} has no mean square", member.name),
        })?;
        (self.mean, self.square) = (mean, square);
        Ok(())
    }
}

/// The sum of all gradients' squares, read back once.
pub(super) fn sum_of_squares(gradients: &[Gradient]) -> Result<f64> {
    let sums = gradients.iter().map(|gradient| gradient.squares.reshape(((), ROW))?.sum(1));
    let sums = sums.collect::<Result<Vec<_>>>()?;
    if sums.is_empty() {
        return Ok(0.0);
    }
    Ok(f64::from(Tensor::cat(&sums, 0)?.sum_all()?.to_scalar::<f32>()?))
}
