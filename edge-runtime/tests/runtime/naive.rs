//! A plain interpreter for plans: `(c, h, w)` in f64, one loop per axis.

use bundles::plan::{Op, Plan, Shape};
use std::collections::HashMap;

pub type Tensors = HashMap<String, Vec<f32>>;

/// Scores of `input`.
pub fn scores(plan: &Plan, tensors: &Tensors, input: &[f32]) -> Vec<f64> {
    let image = input.iter().map(|&x| f64::from(x)).collect();
    let mut nodes = vec![Some(line(&plan.stem, (plan.input, image), tensors))];
    for (i, cell) in plan.cells.iter().enumerate() {
        let alphas = tensors.get(&Plan::alpha_name(i + 1));
        let mut scaled = 0;
        let mut sum: Option<(Shape, Vec<f64>)> = None;
        for gate in &cell.gates {
            let alpha = if gate.scaled { f64::from(alphas.unwrap()[scaled]) } else { 1.0 };
            scaled += usize::from(gate.scaled);
            for path in &gate.paths {
                let (shape, x) = line(&path.ops, nodes[gate.source].clone().unwrap(), tensors);
                let sum = sum.get_or_insert_with(|| (shape, vec![0.0; shape.len()]));
                assert_eq!(sum.0, shape);
                sum.1.iter_mut().zip(x).for_each(|(sum, x)| *sum += alpha * x);
            }
        }
        if let (true, Some((_, x))) = (cell.relu, &mut sum) {
            x.iter_mut().for_each(|x| *x = x.max(0.0));
        }
        nodes.push(sum);
    }
    line(&plan.head, nodes.pop().flatten().unwrap(), tensors).1
}

fn line(ops: &[Op], start: (Shape, Vec<f64>), tensors: &Tensors) -> (Shape, Vec<f64>) {
    ops.iter().fold(start, |(shape, x), op| {
        let to = op.output(shape).unwrap();
        (to, apply(op, shape, to, &x, tensors))
    })
}

fn apply(op: &Op, from: Shape, to: Shape, x: &[f64], tensors: &Tensors) -> Vec<f64> {
    let tensor = |name: &str, kind: &str| {
        let name = format!("{name}.{kind}");
        let numbers = tensors.get(&name).unwrap_or_else(|| panic!("{name}"));
        numbers.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()
    };
    // The pixel at `(c, y, x)`, `None` outside.
    let at = |c: usize, y: isize, w: isize| {
        let inside = (0..from.h as isize).contains(&y) && (0..from.w as isize).contains(&w);
        inside.then(|| x[(c * from.h + y as usize) * from.w + w as usize])
    };
    let window = |c: usize, oy: usize, ox: usize, kernel: usize, stride: usize, pad: usize| {
        (0..kernel).flat_map(move |ky| (0..kernel).map(move |kx| (ky, kx))).map(move |(ky, kx)| {
            let (y, w) = ((oy * stride + ky) as isize, (ox * stride + kx) as isize);
            at(c, y - pad as isize, w - pad as isize)
        })
    };
    let map = |f: &dyn Fn(usize, usize, usize) -> f64| {
        let mut out = Vec::with_capacity(to.len());
        for c in 0..to.c {
            for y in 0..to.h {
                for w in 0..to.w {
                    out.push(f(c, y, w));
                }
            }
        }
        out
    };
    match op {
        Op::Conv(conv) => {
            let weight = tensor(&conv.name, "weight");
            let bias = if conv.bias { tensor(&conv.name, "bias") } else { vec![0.0; conv.c_out] };
            let taps = conv.kernel * conv.kernel;
            // Everything else may be slow; slow convolutions would make the tests take minutes.
            let tap = |o: usize, n: usize| {
                let first = conv.pad.saturating_sub(o * conv.stride).min(conv.kernel);
                first..(n + conv.pad).saturating_sub(o * conv.stride).min(conv.kernel).max(first)
            };
            map(&|o, oy, ox| {
                let mut sum = bias[o];
                for c in 0..conv.c_in {
                    let weight = &weight[(o * conv.c_in + c) * taps..][..taps];
                    for ky in tap(oy, from.h) {
                        let line = &x[(c * from.h + oy * conv.stride + ky - conv.pad) * from.w..][..from.w];
                        for kx in tap(ox, from.w) {
                            sum += line[ox * conv.stride + kx - conv.pad] * weight[ky * conv.kernel + kx];
                        }
                    }
                }
                sum
            })
        }
        Op::Affine(affine) => {
            let (scale, shift) = (tensor(&affine.name, "scale"), tensor(&affine.name, "shift"));
            map(&|c, y, w| scale[c] * at(c, y as isize, w as isize).unwrap() + shift[c])
        }
        Op::Relu => x.iter().map(|x| x.max(0.0)).collect(),
        &Op::MaxPool { kernel, stride, pad } => map(&|c, oy, ox| {
            window(c, oy, ox, kernel, stride, pad).flatten().fold(f64::NEG_INFINITY, f64::max)
        }),
        &Op::AvgPool { kernel, stride } => map(&|c, oy, ox| {
            window(c, oy, ox, kernel, stride, 0).flatten().sum::<f64>() / (kernel * kernel) as f64
        }),
        &Op::Subsample { stride } => {
            map(&|c, oy, ox| at(c, (oy * stride) as isize, (ox * stride) as isize).unwrap())
        }
        &Op::PadChannels { front, .. } => map(&|c, y, w| {
            let inner = c.checked_sub(front).filter(|&c| c < from.c);
            inner.map_or(0.0, |c| at(c, y as isize, w as isize).unwrap())
        }),
        Op::GlobalAvgPool => {
            let pixels = from.h * from.w;
            x.chunks(pixels).map(|plane| plane.iter().sum::<f64>() / pixels as f64).collect()
        }
        Op::Linear(linear) => {
            let (weight, bias) = (tensor(&linear.name, "weight"), tensor(&linear.name, "bias"));
            let rows = weight.chunks(linear.c_in).zip(bias);
            rows.map(|(row, bias)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + bias).collect()
        }
    }
}
