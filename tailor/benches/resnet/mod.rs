//! A residual network built straight from `tailor::ops`, for measuring training steps.
#![allow(dead_code, missing_docs)] // Each bench uses its part of this module.

pub mod student;

use candle_core::{DType, Device, Result, Tensor, Var};
use tailor::ops;

/// A residual network of basic blocks.
pub struct Spec {
    /// Name in reports.
    pub name: &'static str,
    /// Stem: kernel, stride, pad, and whether a 3x3 stride-2 max-pool follows.
    pub stem: (usize, usize, usize, bool),
    /// Channels and blocks of each stage; every stage but the first halves the resolution.
    pub stages: &'static [(usize, usize)],
    /// Input height and width.
    pub size: usize,
    /// Classes.
    pub classes: usize,
}

/// CIFAR ResNet-20.
pub const RESNET20: Spec = Spec {
    name: "resnet20",
    stem: (3, 1, 1, false),
    stages: &[(16, 3), (32, 3), (64, 3)],
    size: 32,
    classes: 10,
};
/// CIFAR ResNet-56.
pub const RESNET56: Spec = Spec {
    name: "resnet56",
    stem: (3, 1, 1, false),
    stages: &[(16, 9), (32, 9), (64, 9)],
    size: 32,
    classes: 10,
};
/// ImageNet ResNet-18.
pub const RESNET18: Spec = Spec {
    name: "resnet18",
    stem: (7, 2, 3, true),
    stages: &[(64, 2), (128, 2), (256, 2), (512, 2)],
    size: 224,
    classes: 1000,
};

/// Standard normal numbers (sum of twelve uniforms), reproducible.
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    fn uniform(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / (1u64 << 24) as f32
    }
    /// A tensor of normal numbers with standard deviation `std`.
    pub fn normal(&mut self, shape: &[usize], std: f32) -> Result<Tensor> {
        let values =
            (0..shape.iter().product()).map(|_| std * ((0..12).map(|_| self.uniform()).sum::<f32>() - 6.));
        Tensor::from_vec(values.collect::<Vec<f32>>(), shape, &Device::Cpu)
    }
    /// Labels below `classes`.
    pub fn labels(&mut self, n: usize, classes: usize) -> Result<Tensor> {
        let values: Vec<u32> = (0..n).map(|_| (self.uniform() * classes as f32) as u32).collect();
        Tensor::from_vec(values, n, &Device::Cpu)
    }
}

/// A convolution followed by batch-norm.
pub struct ConvNorm {
    pub kernel: Tensor,
    pub weight: Tensor,
    pub bias: Tensor,
    pub stride: usize,
    pub pad: usize,
}

/// The primitives a network is built from: ours, or candle's own.
#[derive(Clone, Copy)]
pub struct Kit {
    /// `[relu](batch_norm(conv2d(x)))`.
    pub unit: fn(&Tensor, &ConvNorm, bool) -> Result<Tensor>,
    /// `relu(a + b)`.
    pub sum: fn(&Tensor, &Tensor) -> Result<Tensor>,
    /// 3x3 max-pool, stride 2, pad 1.
    pub pool: fn(&Tensor) -> Result<Tensor>,
}

/// `tailor::ops`.
pub const OURS: Kit = Kit {
    unit: |x, c, relu| Ok(ops::conv_norm(x, c.op(relu, false))?.norm.y),
    sum: |a, b| ops::gated_sum(&[a.clone(), b.clone()], &[None, None], None, true),
    pool: |x| ops::max_pool2d(x, 3, 2, 1),
};

/// Candle's own ops.
pub const STOCK: Kit = Kit {
    unit: |x, c, relu| {
        let y = x.conv2d(&c.kernel, c.pad, c.stride, 1, 1)?;
        Ok(ops::stock::batch_norm(&y, &c.weight, &c.bias, 1e-5, relu)?.y)
    },
    sum: |a, b| (a + b)?.relu(),
    pool: |x| ops::stock::max_pool2d(x, 3, 2, 1),
};

impl ConvNorm {
    fn forward(&self, kit: &Kit, x: &Tensor, relu: bool) -> Result<Tensor> {
        (kit.unit)(x, self, relu)
    }

    /// Itself as our op's argument.
    pub fn op(&self, relu: bool, frozen: bool) -> ops::ConvNorm<'_> {
        ops::ConvNorm {
            kernel: &self.kernel,
            stride: self.stride,
            pad: self.pad,
            frozen_kernel: frozen,
            weight: &self.weight,
            bias: &self.bias,
            eps: 1e-5,
            relu,
            frozen_affine: frozen,
        }
    }
}

/// One basic residual block.
pub struct Block {
    pub first: ConvNorm,
    pub second: ConvNorm,
    pub shortcut: Option<ConvNorm>,
}

/// A network with all parameters trainable, and momentum for each.
pub struct Net {
    pub stem: ConvNorm,
    pub pooled: bool,
    pub blocks: Vec<Block>,
    pub head: (Tensor, Tensor),
    pub vars: Vec<(Var, Tensor)>,
}

struct Builder {
    random: Random,
    vars: Vec<(Var, Tensor)>,
}

impl Builder {
    fn var(&mut self, value: Tensor) -> Result<Tensor> {
        let var = Var::from_tensor(&value)?;
        let tensor = var.as_tensor().clone();
        self.vars.push((var, value.zeros_like()?));
        Ok(tensor)
    }
    fn conv(&mut self, c_in: usize, c_out: usize, k: usize, stride: usize, pad: usize) -> Result<ConvNorm> {
        let std = (2. / (c_in * k * k) as f32).sqrt();
        let kernel = self.random.normal(&[c_out, c_in, k, k], std)?;
        let (one, zero) =
            (Tensor::ones(c_out, DType::F32, &Device::Cpu)?, Tensor::zeros(c_out, DType::F32, &Device::Cpu)?);
        Ok(ConvNorm { kernel: self.var(kernel)?, weight: self.var(one)?, bias: self.var(zero)?, stride, pad })
    }
}

impl Net {
    /// Builds `spec` with random parameters.
    pub fn new(spec: &Spec) -> Result<Net> {
        let mut b = Builder { random: Random::new(1), vars: Vec::new() };
        let (k, stride, pad, pooled) = spec.stem;
        let mut c = spec.stages[0].0;
        let stem = b.conv(3, c, k, stride, pad)?;
        let mut blocks = Vec::new();
        for (stage, &(channels, count)) in spec.stages.iter().enumerate() {
            for i in 0..count {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                let shortcut = if stride == 2 { Some(b.conv(c, channels, 1, 2, 0)?) } else { None };
                let first = b.conv(c, channels, 3, stride, 1)?;
                let second = b.conv(channels, channels, 3, 1, 1)?;
                blocks.push(Block { first, second, shortcut });
                c = channels;
            }
        }
        let weight = b.random.normal(&[spec.classes, c], 0.05)?;
        let head = (b.var(weight)?, b.var(Tensor::zeros(spec.classes, DType::F32, &Device::Cpu)?)?);
        Ok(Net { stem, pooled, blocks, head, vars: b.vars })
    }

    /// Logits.
    pub fn forward(&self, kit: &Kit, x: &Tensor) -> Result<Tensor> {
        let mut x = self.stem.forward(kit, x, true)?;
        if self.pooled {
            x = (kit.pool)(&x)?;
        }
        for block in &self.blocks {
            let y = block.second.forward(kit, &block.first.forward(kit, &x, true)?, false)?;
            let shortcut = match &block.shortcut {
                Some(shortcut) => shortcut.forward(kit, &x, false)?,
                None => x,
            };
            x = (kit.sum)(&y, &shortcut)?;
        }
        ops::global_avg_pool(&x)?.matmul(&self.head.0.t()?)?.broadcast_add(&self.head.1)
    }

    /// One full training step: forward, backward, SGD with momentum and weight decay. Returns the loss.
    pub fn train_step(&mut self, kit: &Kit, x: &Tensor, labels: &Tensor) -> Result<f32> {
        let loss = ops::cross_entropy(&self.forward(kit, x)?, labels, 0.)?;
        let grads = ops::backward(&loss)?;
        for (var, velocity) in &mut self.vars {
            if let Some(g) = grads.get(var) {
                ops::sgd_step(var, g, velocity, 0.001, 0.9, 5e-4)?;
            }
        }
        loss.to_scalar()
    }
}
