//! Architectures by name, and their backbone plans.

use super::{Affine, Cell, Conv, Gate, Linear, Op, Owner, Path, Plan, Role, Shape};
use crate::{Error, Result};
use std::{fmt, str::FromStr};

/// How a CIFAR ResNet's shortcut handles a change of resolution (He et al., CVPR 2016, options A and B).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shortcut {
    /// Option A: every second pixel, zero channels on both sides.
    Pad,
    /// Option B: 1x1 convolution and batch-norm.
    Project,
}

/// The layers of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyForm {
    /// `[max-pool] conv1x1 norm`.
    Single,
    /// `[max-pool] conv1x1 norm relu conv1x1 norm` through `max(out / 32, 16)` channels, for bottleneck
    /// backbones.
    Bottleneck,
}

/// A supported backbone architecture.
///
/// Parsed from and printed as `cifar-resnet20-a`, `cifar-resnet56-b`, `resnet18`, `resnet18-s3` (its first
/// three stages), `resnet34`, `resnet50`, `wrn16-1`, `wrn26-decathlon`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// CIFAR ResNet of depth `6n + 2`: 3 stages of `n` basic blocks with 16, 32, 64 channels.
    CifarResNet {
        /// 20, 32, 44, 56, 110, ...
        depth: usize,
        /// Option A or B.
        shortcut: Shortcut,
    },
    /// torchvision's ResNet-18, -34 or -50, truncated after `stages` of its four stages.
    ResNet {
        /// 18, 34 or 50.
        depth: usize,
        /// 1 to 4.
        stages: usize,
    },
    /// Pre-activation wide ResNet of depth `6n + 4` (Zagoruyko & Komodakis, BMVC 2016).
    WideResNet {
        /// 16, 22, 28, 40, ...
        depth: usize,
        /// Widening factor.
        width: usize,
    },
    /// The 26-layer network of the visual decathlon (Rebuffi et al., CVPR 2018): 12 blocks of 64, 128, 256
    /// channels, shortcuts by average pooling and zero channels.
    DecathlonWrn,
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arch::CifarResNet { depth, shortcut: Shortcut::Pad } => write!(f, "cifar-resnet{depth}-a"),
            Arch::CifarResNet { depth, shortcut: Shortcut::Project } => write!(f, "cifar-resnet{depth}-b"),
            Arch::ResNet { depth, stages: 4 } => write!(f, "resnet{depth}"),
            Arch::ResNet { depth, stages } => write!(f, "resnet{depth}-s{stages}"),
            Arch::WideResNet { depth, width } => write!(f, "wrn{depth}-{width}"),
            Arch::DecathlonWrn => write!(f, "wrn26-decathlon"),
        }
    }
}

impl FromStr for Arch {
    type Err = Error;

    fn from_str(name: &str) -> Result<Arch> {
        let parsed = parse(name).filter(|arch| arch.is_supported());
        parsed.ok_or_else(|| Error::BadRequest {
            what: format!("unknown architecture `{name}`"),
            want: "cifar-resnet20-a (or -b; depth 6n+2), resnet18, resnet34, resnet50 (with -s1, -s2 or -s3 for \
                   the first stages), wrn16-1 (depth 6n+4), wrn26-decathlon"
                .into(),
        })
    }
}

fn parse(name: &str) -> Option<Arch> {
    if name == "wrn26-decathlon" {
        return Some(Arch::DecathlonWrn);
    }
    if let Some(rest) = name.strip_prefix("cifar-resnet") {
        let (depth, option) = rest.split_once('-')?;
        let shortcut = match option {
            "a" => Shortcut::Pad,
            "b" => Shortcut::Project,
            _ => return None,
        };
        return Some(Arch::CifarResNet { depth: depth.parse().ok()?, shortcut });
    }
    if let Some(rest) = name.strip_prefix("resnet") {
        let (depth, stages) = rest.split_once("-s").unwrap_or((rest, "4"));
        return Some(Arch::ResNet { depth: depth.parse().ok()?, stages: stages.parse().ok()? });
    }
    let (depth, width) = name.strip_prefix("wrn")?.split_once('-')?;
    Some(Arch::WideResNet { depth: depth.parse().ok()?, width: width.parse().ok()? })
}

impl Arch {
    /// Whether the parameters describe a network of this family.
    pub fn is_supported(&self) -> bool {
        match *self {
            Arch::CifarResNet { depth, .. } => (8..=1202).contains(&depth) && depth % 6 == 2,
            Arch::ResNet { depth, stages } => matches!(depth, 18 | 34 | 50) && (1..=4).contains(&stages),
            Arch::WideResNet { depth, width } => {
                (10..=250).contains(&depth) && depth % 6 == 4 && (1..=16).contains(&width)
            }
            Arch::DecathlonWrn => true,
        }
    }

    /// The proxy form of this architecture.
    pub fn proxy_form(&self) -> ProxyForm {
        match self {
            Arch::ResNet { depth: 50, .. } => ProxyForm::Bottleneck,
            _ => ProxyForm::Single,
        }
    }

    /// The image height and width it was designed for.
    pub fn native_size(&self) -> usize {
        match self {
            Arch::CifarResNet { .. } | Arch::WideResNet { .. } => 32,
            Arch::ResNet { .. } => 224,
            Arch::DecathlonWrn => 64,
        }
    }

    /// The plain backbone for `height` x `width` RGB images and a classifier with `classes` classes.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for depths outside the family, [`Error::ShapeMismatch`] when the image is too
    /// small for the network.
    pub fn plan(&self, height: usize, width: usize, classes: usize) -> Result<Plan> {
        if !self.is_supported() {
            return Err(Error::BadRequest {
                what: format!("{self} is not a network of its family"),
                want: "see the list of architectures".into(),
            });
        }
        let mut plan = Plan {
            arch: self.to_string(),
            input: Shape::new(3, height, width),
            stem: Vec::new(),
            cells: Vec::new(),
            head: vec![Op::GlobalAvgPool],
        };
        let features = match *self {
            Arch::CifarResNet { depth, shortcut } => cifar_resnet(&mut plan, (depth - 2) / 6, shortcut),
            Arch::ResNet { depth, stages } => resnet(&mut plan, depth, stages),
            Arch::WideResNet { depth, width } => wide_resnet(&mut plan, (depth - 4) / 6, width),
            Arch::DecathlonWrn => decathlon_wrn(&mut plan),
        };
        plan.head.push(Op::Linear(Linear { name: "fc".into(), c_in: features, c_out: classes }));
        plan.check()?;
        Ok(plan)
    }
}

fn conv(name: String, c_in: usize, c_out: usize, kernel: usize, stride: usize) -> Op {
    Op::Conv(Conv { name, owner: Owner::Backbone, c_in, c_out, kernel, stride, pad: kernel / 2, bias: false })
}

fn norm(name: String, channels: usize) -> Op {
    Op::Affine(Affine { name, channels })
}

/// A cell with only its universal block.
fn block(node: usize, relu: bool, paths: [Vec<Op>; 2]) -> Cell {
    let paths = paths.into_iter().map(|ops| Path { ops }).collect();
    Cell { gates: vec![Gate { role: Role::Block, source: node - 1, scaled: false, paths }], relu }
}

/// `conv3x3 norm relu conv3x3 norm`.
fn basic_body(at: &str, c_in: usize, c_out: usize, stride: usize) -> Vec<Op> {
    vec![
        conv(format!("{at}.conv1"), c_in, c_out, 3, stride),
        norm(format!("{at}.bn1"), c_out),
        Op::Relu,
        conv(format!("{at}.conv2"), c_out, c_out, 3, 1),
        norm(format!("{at}.bn2"), c_out),
    ]
}

/// `conv1x1 norm relu conv3x3 norm relu conv1x1 norm` through a quarter of the channels.
fn bottleneck_body(at: &str, c_in: usize, c_out: usize, stride: usize) -> Vec<Op> {
    let mid = c_out / 4;
    vec![
        conv(format!("{at}.conv1"), c_in, mid, 1, 1),
        norm(format!("{at}.bn1"), mid),
        Op::Relu,
        conv(format!("{at}.conv2"), mid, mid, 3, stride),
        norm(format!("{at}.bn2"), mid),
        Op::Relu,
        conv(format!("{at}.conv3"), mid, c_out, 1, 1),
        norm(format!("{at}.bn3"), c_out),
    ]
}

fn projection(at: &str, c_in: usize, c_out: usize, stride: usize) -> Vec<Op> {
    vec![
        conv(format!("{at}.downsample.0"), c_in, c_out, 1, stride),
        norm(format!("{at}.downsample.1"), c_out),
    ]
}

fn cifar_resnet(plan: &mut Plan, n: usize, shortcut: Shortcut) -> usize {
    plan.stem = vec![conv("conv1".into(), 3, 16, 3, 1), norm("bn1".into(), 16), Op::Relu];
    let mut c = 16;
    for (stage, c_out) in [16, 32, 64].into_iter().enumerate() {
        for i in 0..n {
            let at = format!("layer{}.{i}", stage + 1);
            let stride = if stage > 0 && i == 0 { 2 } else { 1 };
            let across = match shortcut {
                _ if stride == 1 => Vec::new(),
                Shortcut::Pad => {
                    let zeros = c_out - c;
                    let front = zeros / 2;
                    vec![Op::Subsample { stride }, Op::PadChannels { front, back: zeros - front }]
                }
                Shortcut::Project => projection(&at, c, c_out, stride),
            };
            let node = plan.cells.len() + 1;
            plan.cells.push(block(node, true, [basic_body(&at, c, c_out, stride), across]));
            c = c_out;
        }
    }
    c
}

fn resnet(plan: &mut Plan, depth: usize, stages: usize) -> usize {
    plan.stem = vec![
        conv("conv1".into(), 3, 64, 7, 2),
        norm("bn1".into(), 64),
        Op::Relu,
        Op::MaxPool { kernel: 3, stride: 2, pad: 1 },
    ];
    let (blocks, expansion) = match depth {
        18 => ([2, 2, 2, 2], 1),
        34 => ([3, 4, 6, 3], 1),
        _ => ([3, 4, 6, 3], 4),
    };
    let mut c = 64;
    for (stage, &n) in blocks.iter().enumerate().take(stages) {
        let c_out = (64 << stage) * expansion;
        for i in 0..n {
            let at = format!("layer{}.{i}", stage + 1);
            let stride = if stage > 0 && i == 0 { 2 } else { 1 };
            let body = match expansion {
                1 => basic_body(&at, c, c_out, stride),
                _ => bottleneck_body(&at, c, c_out, stride),
            };
            let across =
                if c != c_out || stride > 1 { projection(&at, c, c_out, stride) } else { Vec::new() };
            let node = plan.cells.len() + 1;
            plan.cells.push(block(node, true, [body, across]));
            c = c_out;
        }
    }
    c
}

fn wide_resnet(plan: &mut Plan, n: usize, width: usize) -> usize {
    plan.stem = vec![conv("conv1".into(), 3, 16, 3, 1)];
    let mut c = 16;
    for stage in 0..3 {
        let c_out = (16 << stage) * width;
        for i in 0..n {
            let at = format!("layer{}.{i}", stage + 1);
            let stride = if stage > 0 && i == 0 { 2 } else { 1 };
            let activate = [norm(format!("{at}.bn1"), c), Op::Relu];
            let mut body = activate.to_vec();
            body.extend([
                conv(format!("{at}.conv1"), c, c_out, 3, stride),
                norm(format!("{at}.bn2"), c_out),
                Op::Relu,
                conv(format!("{at}.conv2"), c_out, c_out, 3, 1),
            ]);
            // The projection reads the same activated input as the body, so it starts with the same norm.
            let mut across = Vec::new();
            if c != c_out {
                across.extend(activate);
                across.push(conv(format!("{at}.shortcut"), c, c_out, 1, stride));
            } else if stride > 1 {
                across.push(Op::Subsample { stride });
            }
            let node = plan.cells.len() + 1;
            plan.cells.push(block(node, false, [body, across]));
            c = c_out;
        }
    }
    plan.head = vec![norm("bn1".into(), c), Op::Relu, Op::GlobalAvgPool];
    c
}

fn decathlon_wrn(plan: &mut Plan) -> usize {
    plan.stem = vec![conv("conv1".into(), 3, 32, 3, 1), norm("bn1".into(), 32)];
    let mut c = 32;
    for (stage, c_out) in [64, 128, 256].into_iter().enumerate() {
        for i in 0..4 {
            let at = format!("layer{}.{i}", stage + 1);
            let stride = if i == 0 { 2 } else { 1 };
            let across = match stride {
                1 => Vec::new(),
                _ => {
                    vec![Op::AvgPool { kernel: 2, stride: 2 }, Op::PadChannels { front: 0, back: c_out - c }]
                }
            };
            let node = plan.cells.len() + 1;
            plan.cells.push(block(node, true, [basic_body(&at, c, c_out, stride), across]));
            c = c_out;
        }
    }
    plan.head = vec![norm("bn_end".into(), c), Op::Relu, Op::GlobalAvgPool];
    c
}
