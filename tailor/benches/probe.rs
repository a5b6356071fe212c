//! probe
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
mod resnet;
use resnet::*;
use candle_core::*;
use tailor::ops;
fn cpu() -> f64 {
    let mut t = 0u64;
    for e in std::fs::read_dir("/proc/self/task").unwrap() {
        let s = std::fs::read_to_string(e.unwrap().path().join("schedstat")).unwrap_or_default();
        t += s.split(' ').next().and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
    }
    t as f64 * 1e-9
}
fn best(reps: usize, mut f: impl FnMut()) -> f64 {
    let mut b = f64::INFINITY;
    for _ in 0..reps { let t = cpu(); f(); b = b.min(cpu() - t); }
    b
}
fn main() -> Result<()> {
    let mut r = Random::new(2);
    let n: usize = 64;
    let only = std::env::args().any(|a| a == "step");
    if !only {
    for (ci, sz, co, k, s, p, n) in [(3, 32, 16, 3, 1, 1, n), (16, 32, 16, 3, 1, 1, n), (32, 16, 32, 3, 1, 1, n), (64, 8, 64, 3, 1, 1, n), (16, 32, 32, 3, 2, 1, n), (32, 16, 64, 3, 2, 1, n), (16, 32, 32, 1, 2, 0, n), (16, 32, 16, 1, 1, 0, n), (64,8,64,1,1,0,n), (64, 56, 64, 3, 1, 1, 8), (512, 7, 512, 3, 1, 1, 8), (256,14,256,3,1,1,8), (3,224,64,7,2,3,8)] {
        let x = Var::from_tensor(&r.normal(&[n, ci, sz, sz], 1.)?)?;
        let w = Var::from_tensor(&r.normal(&[co, ci, k, k], 1.)?)?;
        let xd = x.as_detached_tensor();
        let wd = w.as_detached_tensor();
        let o = (sz + 2 * p - k) / s + 1;
        let fl = 2e-9 * (n * co * ci * k * k * o * o) as f64;
        let f = best(10, || { ops::conv2d(&xd, &wd, s, p, true).unwrap(); });
        let y1 = ops::conv2d(&x, &wd, s, p, true)?;
        let y2 = ops::conv2d(&xd, &w, s, p, false)?;
        let d = best(10, || { y1.backward().unwrap(); });
        let g = best(10, || { y2.backward().unwrap(); });
        println!("conv {ci}x{sz} -> {co} k{k} s{s}: fwd {:.2} ms {:.0} GF/s  data {:.2} ms {:.0}  weight {:.2} ms {:.0}", f*1e3, fl/f, d*1e3, fl/d, g*1e3, fl/g);
    }
    let x = Var::from_tensor(&r.normal(&[64, 16, 32, 32], 1.)?)?;
    let xd = x.as_detached_tensor();
    let w = Tensor::ones(16, DType::F32, &Device::Cpu)?;
    println!("bn fwd {:.2} ms", 1e3 * best(10, || { ops::batch_norm(&xd, &w, &w, 1e-5, true, true).unwrap(); }));
    let y = ops::batch_norm(&x, &w, &w, 1e-5, true, true)?.y;
    println!("bn bwd {:.2} ms", 1e3 * best(10, || { y.backward().unwrap(); }));
    println!("sum fwd {:.2} ms", 1e3 * best(10, || { ops::gated_sum(&[xd.clone(), xd.clone()], &[None, None], None, true).unwrap(); }));
    let y = ops::gated_sum(&[x.as_tensor().clone(), x.as_tensor().clone()], &[None, None], None, true)?;
    println!("sum bwd {:.2} ms", 1e3 * best(10, || { y.backward().unwrap(); }));
    let y = x.reshape((64, 16, 1024))?;
    println!("reshape bwd (overhead ones+zeros+add) {:.2} ms", 1e3 * best(10, || { y.backward().unwrap(); }));
    }
    let mut net = Net::new(&RESNET20)?;
    let xi = r.normal(&[64, 3, 32, 32], 1.)?;
    let l = r.labels(64, 10)?;
    let t = best(30, || { net.train_step(&OURS, &xi, &l).unwrap(); });
    println!("resnet20 step {:.1} ms cpu -> {:.0} img/s per core", t*1e3, 64./t);
    let f = best(12, || { net.forward(&OURS, &xi).unwrap(); });
    println!("resnet20 forward {:.1} ms cpu", f*1e3);
    Ok(())
}
