//! How fast is each convolution of a network on this machine? `cargo bench -p edge-runtime --bench kernels`
//!
//! Prints, per layer of ResNet-18 (224 px) and CIFAR ResNet-20 (32 px), the best of many single-thread runs
//! for every instruction set, and the sum over the network. GFLOP/s count the direct method's two operations
//! per multiply-add, so a Winograd layer may exceed what the machine could do directly.
//! Arguments: `--isa NAME`, `--threads N`, and any word a layer's name must contain.

use bundles::plan::Shape;
use edge_runtime::kernels::{
    ConvShape, Epilogue, Floats, Isa, Window, conv, max_pool, pack, packed_len, scratch_len,
};
use edge_runtime::pool::Pool;
use std::time::{Duration, Instant};

/// Input channels, size, output channels, kernel, stride; how often the network has it.
type Layer = (usize, usize, usize, usize, usize, usize);

const RESNET18: &[Layer] = &[
    (3, 224, 64, 7, 2, 1),
    (64, 56, 64, 3, 1, 4),
    (64, 56, 128, 3, 2, 1),
    (64, 56, 128, 1, 2, 1),
    (128, 28, 128, 3, 1, 3),
    (128, 28, 256, 3, 2, 1),
    (128, 28, 256, 1, 2, 1),
    (256, 14, 256, 3, 1, 3),
    (256, 14, 512, 3, 2, 1),
    (256, 14, 512, 1, 2, 1),
    (512, 7, 512, 3, 1, 3),
];

const RESNET20: &[Layer] = &[
    (3, 32, 16, 3, 1, 1),
    (16, 32, 16, 3, 1, 6),
    (16, 32, 32, 3, 2, 1),
    (32, 16, 32, 3, 1, 5),
    (32, 16, 64, 3, 2, 1),
    (64, 8, 64, 3, 1, 5),
];

fn random(len: usize) -> Floats {
    let mut seed = 1u32;
    let mut floats = Floats::zeros(len);
    for x in floats.iter_mut() {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *x = (seed >> 8) as f32 / (1 << 23) as f32 - 1.0;
    }
    floats
}

fn best_of(limit: Duration, mut f: impl FnMut()) -> Duration {
    let started = Instant::now();
    let mut best = Duration::MAX;
    let mut runs = 0;
    while runs < 5 || (started.elapsed() < limit && runs < 2000) {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed());
        runs += 1;
    }
    best
}

/// One convolution with its buffers.
struct Prepared {
    s: ConvShape,
    packed: Floats,
    input: Floats,
    out: Floats,
    scratch: Floats,
    factors: Floats,
}

impl Prepared {
    fn new(isa: Isa, &(c_in, size, c_out, kernel, stride, _): &Layer, threads: usize) -> Prepared {
        let (pad, input_nchw) = (kernel / 2, c_in == 3);
        let s = ConvShape { c_in, h: size, w: size, c_out, kernel, stride, pad, input_nchw };
        let mut packed = random(packed_len(isa, &s));
        pack(isa, &s, &random(c_out * c_in * kernel * kernel), &mut packed).expect("packs");
        Prepared {
            s,
            packed,
            input: random(isa.padded(c_in) * size * size),
            out: random(isa.padded(c_out) * s.out_h() * s.out_w()),
            scratch: random(scratch_len(isa, &s, threads)),
            factors: random(isa.padded(c_out)),
        }
    }

    fn run(&mut self, isa: Isa, pool: &Pool) {
        let factors = Some(&*self.factors);
        let e = Epilogue { scale: factors, shift: factors, relu: true, ..Epilogue::default() };
        conv(isa, &self.s, &self.packed, &self.input, &e, &mut self.out, &mut self.scratch, pool)
            .expect("runs");
    }
}

fn network(name: &str, layers: &[Layer], isa: Isa, pool: &Pool, only: &[String]) {
    println!("{name}, {isa}, {} thread(s)", pool.threads());
    let mut all = Vec::new();
    for layer in layers {
        let &(c_in, size, c_out, kernel, stride, times) = layer;
        let label = format!("{c_in:>4} x {size:>3} -> {c_out:>4}, {kernel}x{kernel} stride {stride}");
        if !only.iter().all(|word| label.contains(word)) {
            continue;
        }
        let mut one = Prepared::new(isa, layer, pool.threads());
        let best = best_of(Duration::from_millis(250), || one.run(isa, pool)).as_secs_f64();
        let gflops = 2.0 * one.s.macs() as f64 / best / 1e9;
        println!("  {label}  x{times}  {:>8.1} us  {gflops:>6.1} GFLOP/s", best * 1e6);
        all.extend((0..times).map(|_| Prepared::new(isa, layer, pool.threads())));
    }
    // Each with its own weights, as in a frame: what does not fit the caches is paid for here.
    let bytes: usize = all.iter().map(|one| one.packed.len() * 4).sum();
    let best = best_of(Duration::from_secs(2), || all.iter_mut().for_each(|one| one.run(isa, pool)));
    let (ms, mib) = (best.as_secs_f64() * 1e3, bytes as f64 / f64::from(1 << 20));
    println!("  all convolutions in turn {ms:.3} ms, {mib:.1} MiB of packed weights\n");
}

/// The max-pool of ResNet-18's stem, the largest step that is no convolution.
fn stem_pool(isa: Isa, pool: &Pool) {
    let x = Shape::new(64, 112, 112);
    let window = Window { kernel: 3, stride: 2, pad: 1 };
    let (input, mut out) = (random(64 * 112 * 112), Floats::zeros(64 * 56 * 56));
    let best = best_of(Duration::from_millis(250), || {
        max_pool(isa, x, window, &input, &mut out, pool).expect("runs");
    });
    println!("max-pool 3x3 stride 2 of {x}, {isa}: {:.1} us\n", best.as_secs_f64() * 1e6);
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (mut isas, mut threads, mut only) = (Isa::available(), 1, Vec::new());
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--isa" => {
                let name = args.next().unwrap_or_default();
                isas = vec![name.parse().expect("an instruction set's name")];
            }
            "--threads" => threads = args.next().and_then(|n| n.parse().ok()).expect("a number of threads"),
            _ => only.push(arg),
        }
    }
    let pool = Pool::new(threads);
    for isa in isas {
        network("ResNet-18, 224 px", RESNET18, isa, &pool, &only);
        stem_pool(isa, &pool);
        network("CIFAR ResNet-20, 32 px", RESNET20, isa, &pool, &only);
    }
}
