//! `cargo bench -p tailor --bench train`: images/s of whole training steps, teacher and student.
//!
//! One case only: `-- --net resnet20 --step student --batch 32 --seconds 5`. Each case prints one JSON line
//! with the best step's rate; `tests/peers/run train --json` runs this beside PyTorch and adds the ratios.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod resnet;

use candle_core::Result;
use resnet::student::Student;
use resnet::{Net, OURS, RESNET18, RESNET20, RESNET56, Random, Spec};
use std::time::Instant;

const CASES: [(&Spec, usize); 5] =
    [(&RESNET20, 32), (&RESNET20, 64), (&RESNET56, 32), (&RESNET56, 64), (&RESNET18, 8)];

fn measure(spec: &Spec, step: &str, batch: usize, seconds: f64) -> Result<()> {
    let mut random = Random::new(2);
    let x = random.normal(&[batch, 3, spec.size, spec.size], 1.)?;
    let labels = random.labels(batch, spec.classes)?;
    let mut run: Box<dyn FnMut() -> Result<f32>> = if step == "student" {
        let mut student = Student::new(spec)?;
        Box::new(move || student.step(&x, &labels))
    } else {
        let mut net = Net::new(spec)?;
        Box::new(move || net.train_step(&OURS, &x, &labels))
    };
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    // The first steps warm the allocator and the caches.
    for round in 0.. {
        let before = Instant::now();
        let loss = run()?;
        assert!(loss.is_finite(), "{}: loss {loss} after {round} steps", spec.name);
        best = best.min(before.elapsed().as_secs_f64());
        if round >= 3 && start.elapsed().as_secs_f64() > seconds {
            break;
        }
    }
    println!(
        "{{\"net\":\"{}\",\"step\":\"{step}\",\"batch\":{batch},\"threads\":{},\"ours_img_s\":{:.1}}}",
        spec.name,
        rayon::current_num_threads(),
        batch as f64 / best
    );
    Ok(())
}

fn main() -> Result<()> {
    tailor::startup::run(measure_all)
}

fn measure_all() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1));
    let seconds = value("--seconds").and_then(|s| s.parse().ok()).unwrap_or(5.);
    for step in ["teacher", "student"] {
        for (spec, batch) in CASES {
            let wanted = value("--net").is_none_or(|n| n == spec.name)
                && value("--step").is_none_or(|s| s == step)
                && value("--batch").is_none_or(|b| *b == batch.to_string());
            if wanted {
                measure(spec, step, batch, seconds)?;
            }
        }
    }
    Ok(())
}
