//! What gates are made of and are charged for: a few numbers for each node of a network.

use super::node::{node, plain, wanted};
use super::stock;
use candle_core::{Result, Tensor, bail};

/// Softmax of `logits (g,)`, of the same shape.
///
/// # Errors
/// Another shape, or no numbers.
pub fn softmax(logits: &Tensor) -> Result<Tensor> {
    if logits.dims1()? == 0 {
        bail!("softmax: of no numbers")
    }
    #[cfg(feature = "cuda")]
    if super::gpu::runs(logits) {
        return super::gpu::softmax(logits);
    }
    if stock::composed(logits) {
        return stock::softmax(logits);
    }
    let x: Vec<f32> = logits.to_vec1()?;
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = x.iter().map(|x| (x - largest).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    let value: Vec<f32> = exponentials.iter().map(|e| e / sum).collect();
    let kept = value.clone();
    node("softmax", &[logits], value, x.len(), move |_, g| {
        let g: Vec<f32> = g.to_vec1()?;
        let dot: f32 = g.iter().zip(&kept).map(|(g, y)| g * y).sum();
        let dx: Vec<f32> = g.iter().zip(&kept).map(|(g, y)| y * (g - dot)).collect();
        Ok(vec![Some(plain(dx, kept.len())?)])
    })
}

/// A scalar whose `value` and `slopes` along `arguments`, one vector `(g,)` of slopes for each, are known.
///
/// # Errors
/// No arguments, or slopes of another shape than theirs.
pub fn scalar(name: &'static str, arguments: &[&Tensor], value: f64, slopes: &[Vec<f64>]) -> Result<Tensor> {
    let Some(first) = arguments.first() else { bail!("{name}: of nothing") };
    let fits =
        arguments.len() == slopes.len() && arguments.iter().zip(slopes).all(|(a, s)| a.dims() == [s.len()]);
    if !fits {
        let (shapes, counts): (Vec<_>, Vec<_>) =
            (arguments.iter().map(|a| a.dims()).collect(), slopes.iter().map(Vec::len).collect());
        bail!("{name}: {counts:?} slopes along tensors of shapes {shapes:?}")
    }
    let tensor = |numbers: &[f64], of: &Tensor| {
        let numbers: Vec<f32> = numbers.iter().map(|v| *v as f32).collect();
        Tensor::from_vec(numbers, of.shape(), of.device())
    };
    if stock::composed(first) {
        // First order is all that gradients see.
        let mut sum = Tensor::new(value as f32, first.device())?;
        for (a, slopes) in arguments.iter().zip(slopes) {
            sum = (sum + ((*a - a.detach())? * tensor(slopes, a)?)?.sum_all()?)?;
        }
        return Ok(sum);
    }
    let along = |(a, slopes): (&&Tensor, &Vec<f64>)| wanted(a).then(|| tensor(slopes, a)).transpose();
    let along: Vec<Option<Tensor>> = arguments.iter().zip(slopes).map(along).collect::<Result<_>>()?;
    #[cfg(feature = "cuda")]
    if super::gpu::runs(first) {
        let value = super::gpu::number(value as f32, first)?;
        return node(name, arguments, value, (), move |_, g| times(&along, g));
    }
    node(name, arguments, vec![value as f32], (), move |_, g| times(&along, g))
}

/// Slopes times the scalar `g`.
fn times(slopes: &[Option<Tensor>], g: &Tensor) -> Result<Vec<Option<Tensor>>> {
    slopes.iter().map(|slopes| slopes.as_ref().map(|s| s.broadcast_mul(&g.detach())).transpose()).collect()
}
