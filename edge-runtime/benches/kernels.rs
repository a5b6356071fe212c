//! Measures every convolution of a network on this machine: `cargo bench -p edge-runtime --bench kernels`
//!
//! Prints, per layer of ResNet-18 (224 px) and CIFAR ResNet-20 (32 px), the best of many single-thread runs
//! for every instruction set, and the sum over the network. GFLOP/s count the direct method's two operations
//! per multiply-add, so a Winograd layer may exceed the machine's peak. Arguments: `--int8` (the integer
//! kernels instead), `--isa NAME`, `--threads N`, and words that a layer's name must contain.

use bundles::plan::Shape;
use edge_runtime::kernels::{
    ConvShape, Epilogue, Floats, Isa, Window, conv, int8, max_pool, pack, packed_len, scratch_len,
};
use edge_runtime::pool::Pool;
use std::time::{Duration, Instant};

/// Input channels, size, output channels, kernel, stride; number of occurrences in the network.
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

/// A convolution with its buffers, in either precision.
trait Layered {
    fn new(isa: Isa, layer: &Layer, threads: usize) -> Self;
    fn run(&mut self, isa: Isa, pool: &Pool);
    fn shape(&self) -> ConvShape;
    /// Size of its packed weights in bytes.
    fn bytes(&self) -> usize;
}

fn shape(&(c_in, size, c_out, kernel, stride, _): &Layer) -> ConvShape {
    ConvShape { c_in, h: size, w: size, c_out, kernel, stride, pad: kernel / 2, input_nchw: c_in == 3 }
}

/// Bytes aligned to a cache line.
struct Bytes {
    memory: Vec<u8>,
    skip: usize,
}

impl Bytes {
    fn random(len: usize) -> Bytes {
        let mut seed = 1u32;
        let next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        let memory: Vec<u8> = std::iter::repeat_with(next).take(len + 63).collect();
        let skip = memory.as_ptr().align_offset(64);
        Bytes { memory, skip }
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.memory[self.skip..]
    }
}

/// An int8 convolution from u8 map to u8 map.
struct Prepared8 {
    s: ConvShape,
    packed: Vec<i8>,
    skip: usize,
    input: Bytes,
    out: Bytes,
    scratch: Bytes,
    factors: Floats,
}

impl Layered for Prepared8 {
    fn new(_isa: Isa, layer: &Layer, _threads: usize) -> Prepared8 {
        let s = shape(layer);
        let plain: Vec<i8> = (0..s.c_out * s.c_in * s.kernel * s.kernel).map(|i| (i * 37) as i8).collect();
        let mut packed = vec![0; int8::packed_len(&s) + 63];
        let skip = packed.as_ptr().align_offset(64);
        int8::pack(&s, &plain, &mut packed[skip..]).expect("packs");
        Prepared8 {
            s,
            packed,
            skip,
            input: Bytes::random(int8::padded(s.c_in) * s.h * s.w),
            out: Bytes::random(int8::padded(s.c_out) * s.out_h() * s.out_w()),
            scratch: Bytes::random(int8::scratch_len(&s)),
            factors: random(int8::padded(s.c_out)),
        }
    }

    fn run(&mut self, isa: Isa, pool: &Pool) {
        let e = int8::Finish { shift: &self.factors, add: None, terms: None };
        let (weights, mut out) = (&self.packed[self.skip..], int8::Out::Bytes(self.out.get()));
        let (input, scratch) = (self.input.get(), self.scratch.get());
        int8::conv(isa, &self.s, weights, &self.factors, input, 0, &e, &mut out, scratch, pool)
            .expect("runs");
    }

    fn shape(&self) -> ConvShape {
        self.s
    }

    fn bytes(&self) -> usize {
        self.packed.len()
    }
}

/// One f32 convolution with its buffers.
struct Prepared {
    s: ConvShape,
    packed: Floats,
    input: Floats,
    out: Floats,
    scratch: Floats,
    factors: Floats,
}

impl Layered for Prepared {
    fn new(isa: Isa, layer: &Layer, threads: usize) -> Prepared {
        let s = shape(layer);
        let mut packed = random(packed_len(isa, &s));
        pack(isa, &s, &random(s.c_out * s.c_in * s.kernel * s.kernel), &mut packed).expect("packs");
        Prepared {
            s,
            packed,
            input: random(isa.padded(s.c_in) * s.h * s.w),
            out: random(isa.padded(s.c_out) * s.out_h() * s.out_w()),
            scratch: random(scratch_len(isa, &s, packed_len(isa, &s), threads)),
            factors: random(isa.padded(s.c_out)),
        }
    }

    fn run(&mut self, isa: Isa, pool: &Pool) {
        let factors = Some(&*self.factors);
        let e = Epilogue { scale: factors, shift: factors, relu: true, ..Epilogue::default() };
        conv(isa, &self.s, &self.packed, &self.input, &e, &mut self.out, &mut self.scratch, pool)
            .expect("runs");
    }

    fn shape(&self) -> ConvShape {
        self.s
    }

    fn bytes(&self) -> usize {
        4 * self.packed.len()
    }
}

fn network<L: Layered>(name: &str, layers: &[Layer], isa: Isa, pool: &Pool, only: &[String]) {
    println!("{name}, {isa}, {} thread(s)", pool.threads());
    let mut all = Vec::new();
    for layer in layers {
        let &(c_in, size, c_out, kernel, stride, times) = layer;
        let label = format!("{c_in:>4} x {size:>3} -> {c_out:>4}, {kernel}x{kernel} stride {stride}");
        if !only.iter().all(|word| label.contains(word)) {
            continue;
        }
        let mut one = L::new(isa, layer, pool.threads());
        let best = best_of(Duration::from_millis(250), || one.run(isa, pool)).as_secs_f64();
        let gflops = 2.0 * one.shape().macs() as f64 / best / 1e9;
        println!("  {label}  x{times}  {:>8.1} us  {gflops:>6.1} GFLOP/s", best * 1e6);
        all.extend((0..times).map(|_| L::new(isa, layer, pool.threads())));
    }
    // Each with its own weights, as in a frame, so that cache misses are included.
    let bytes: usize = all.iter().map(L::bytes).sum();
    let best = best_of(Duration::from_secs(2), || all.iter_mut().for_each(|one| one.run(isa, pool)));
    let (ms, mib) = (best.as_secs_f64() * 1e3, bytes as f64 / f64::from(1 << 20));
    println!("  all convolutions in turn {ms:.3} ms, {mib:.1} MiB of packed weights\n");
}

/// The max-pool of ResNet-18's stem, the largest step other than a convolution.
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
    let (mut isas, mut threads, mut only, mut integers) = (Isa::available(), 1, Vec::new(), false);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--isa" => {
                let name = args.next().unwrap_or_default();
                isas = vec![name.parse().expect("an instruction set's name")];
            }
            "--threads" => threads = args.next().and_then(|n| n.parse().ok()).expect("a number of threads"),
            "--int8" => integers = true,
            _ => only.push(arg),
        }
    }
    let pool = Pool::new(threads);
    for isa in isas {
        if integers {
            network::<Prepared8>("int8 ResNet-18, 224 px", RESNET18, isa, &pool, &only);
            network::<Prepared8>("int8 CIFAR ResNet-20, 32 px", RESNET20, isa, &pool, &only);
            continue;
        }
        network::<Prepared>("ResNet-18, 224 px", RESNET18, isa, &pool, &only);
        stem_pool(isa, &pool);
        network::<Prepared>("CIFAR ResNet-20, 32 px", RESNET20, isa, &pool, &only);
    }
}
