//! `cargo bench -p tailor --bench stock`: a full ResNet-20 training step of ours beside the same network
//! built from candle's own ops, in one run.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod resnet;

use candle_core::Result;
use resnet::{Kit, Net, OURS, RESNET20, Random, STOCK};
use std::time::Instant;

const BATCH: usize = 64;

fn main() -> Result<()> {
    tailor::startup::run(measure_all)
}

fn measure_all() -> Result<()> {
    let mut random = Random::new(2);
    let x = random.normal(&[BATCH, 3, 32, 32], 1.)?;
    let labels = random.labels(BATCH, 10)?;
    let (mut ours, mut stock) = (Net::new(&RESNET20)?, Net::new(&RESNET20)?);
    let time = |net: &mut Net, kit: &Kit| -> Result<(f64, f32)> {
        let start = Instant::now();
        let loss = net.train_step(kit, &x, &labels)?;
        Ok((start.elapsed().as_secs_f64(), loss))
    };
    for _ in 0..3 {
        time(&mut ours, &OURS)?;
    }
    let mut net = Net::new(&RESNET20)?;
    let (_, first) = time(&mut net, &OURS)?;
    let (mut best_ours, mut best_stock) = (f64::INFINITY, f64::INFINITY);
    for round in 0..3 {
        let (seconds, loss) = time(&mut stock, &STOCK)?;
        best_stock = best_stock.min(seconds);
        if round == 0 {
            assert!((loss - first).abs() < 1e-3, "the two networks disagree: loss {first} and {loss}");
        }
        for _ in 0..10 {
            best_ours = best_ours.min(time(&mut ours, &OURS)?.0);
        }
    }
    let rate = |seconds: f64| BATCH as f64 / seconds;
    println!(
        "ResNet-20, 32 px, batch {BATCH}, forward + backward + SGD, {} threads",
        rayon::current_num_threads()
    );
    println!("ours  {:8.1} img/s", rate(best_ours));
    println!("stock {:8.1} img/s", rate(best_stock));
    println!("ratio {:8.1} x", best_stock / best_ours);
    Ok(())
}
