//! How fast is each convolution of a network on this machine? `cargo bench -p edge-runtime --bench kernels`
//!
//! Prints, per layer of ResNet-18 (224 px) and CIFAR ResNet-20 (32 px), the best of many single-thread runs
//! for every instruction set, and the sum over the network. GFLOP/s count the direct method's two operations
//! per multiply-add, so a Winograd layer may exceed what the machine could do directly.
//! Arguments: `--isa NAME`, `--threads N`, and any word a layer's name must contain.

use edge_runtime::kernels::{ConvShape, Epilogue, Isa, conv, pack, packed_len, scratch_len};
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

/// Floats that start on a cache line, as they do in an arena and in a mapped backbone.
struct Aligned(Vec<f32>, usize, usize);

impl Aligned {
    fn new(len: usize) -> Aligned {
        let mut seed = 1u32;
        let next = |_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let data: Vec<f32> = (0..len + 16).map(next).collect();
        let skip = data.as_ptr().align_offset(64);
        Aligned(data, skip, len)
    }

    fn get(&mut self) -> &mut [f32] {
        &mut self.0[self.1..][..self.2]
    }
}

fn best_of(mut f: impl FnMut()) -> Duration {
    let started = Instant::now();
    let mut best = Duration::MAX;
    let mut runs = 0;
    while runs < 5 || (started.elapsed() < Duration::from_millis(250) && runs < 2000) {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed());
        runs += 1;
    }
    best
}

fn network(name: &str, layers: &[Layer], isa: Isa, pool: &Pool, only: &[String]) {
    println!("{name}, {isa}, {} thread(s)", pool.threads());
    let mut total = 0.0;
    for &(c_in, size, c_out, kernel, stride, times) in layers {
        let label = format!("{c_in:>4} x {size:>3} -> {c_out:>4}, {kernel}x{kernel} stride {stride}");
        if !only.iter().all(|word| label.contains(word)) {
            continue;
        }
        let s = ConvShape {
            c_in,
            h: size,
            w: size,
            c_out,
            kernel,
            stride,
            pad: kernel / 2,
            input_nchw: c_in == 3,
        };
        let mut w = Aligned::new(c_out * c_in * kernel * kernel);
        let mut packed = Aligned::new(packed_len(isa, &s));
        pack(isa, &s, w.get(), packed.get()).expect("packs");
        let mut input = Aligned::new(isa.padded(c_in) * size * size);
        let mut out = Aligned::new(isa.padded(c_out) * s.out_h() * s.out_w());
        let mut scratch = Aligned::new(scratch_len(isa, &s, pool.threads()));
        let mut factors = Aligned::new(isa.padded(c_out));
        let (packed, input, out) = (packed.get(), input.get(), out.get());
        let (scratch, factors) = (scratch.get(), factors.get());
        let e = Epilogue { scale: Some(factors), shift: Some(factors), relu: true, ..Epilogue::default() };
        let best = best_of(|| conv(isa, &s, packed, input, &e, out, scratch, pool).expect("runs"));
        let gflops = 2.0 * s.macs() as f64 / best.as_secs_f64() / 1e9;
        total += best.as_secs_f64() * times as f64;
        println!("  {label}  x{times}  {:>8.1} us  {gflops:>6.1} GFLOP/s", best.as_secs_f64() * 1e6);
    }
    println!("  all convolutions {:.3} ms\n", total * 1e3);
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
        network("CIFAR ResNet-20, 32 px", RESNET20, isa, &pool, &only);
    }
}
