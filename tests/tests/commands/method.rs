//! Options of the method: counting, budgets, gates, sweeps, and candidates as cluster jobs.

use super::{Bench, bench, failure, number, program, stdout, text};
use std::fs;
use std::path::Path;

const EPOCHS: [&str; 6] = ["--epochs", "1,2,1", "--validation", "0.34", "--teach-rate", "one-cycle:0.02"];

fn fit<'a>(bench: &'a Bench, work: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["--backbone", text(&bench.backbone), "--data", text(&bench.images)];
    args.extend(["--work", text(work), "--name", "halves"]);
    args.extend(EPOCHS);
    args.extend(more);
    args
}

fn report(args: &[&str]) -> String {
    stdout("tailor", &[&["fit", "--json"], args].concat())
}

/// The values (of the backbone, of the task).
fn both(report: &str, key: &str) -> (f64, f64) {
    let (backbone, task) = report.split_once("\"task\":").unwrap();
    (number(backbone, key), number(task, key))
}

#[test]
fn a_budget_is_kept_in_every_unit() {
    let bench = bench();
    let table = bench.folder.path().join("latency.json");
    let blocks = ["bench", "--backbone", text(&bench.backbone), "--blocks", text(&table)];
    stdout("edge-runtime", &blocks);
    let work = |name: &str| bench.folder.path().join(name);

    let (by_macs, by_params, by_time) = (work("macs"), work("params"), work("time"));
    let lean = report(&fit(&bench, &by_macs, &["--budget", "20M", "--search", "bisect", "--theta", "0"]));
    let (_, macs) = both(&lean, "macs");
    assert!(macs <= 20e6, "{lean}");
    let lean = report(&fit(
        &bench,
        &by_params,
        &["--cost", "params", "--budget", "150k", "--search", "iterative", "--theta", "0"],
    ));
    let (_, params) = both(&lean, "params");
    assert!(params <= 150e3, "{lean}");
    let timed = [
        "--cost",
        "latency",
        "--table",
        text(&table),
        "--budget",
        "60%",
        "--search",
        "bisect",
        "--theta",
        "0",
    ];
    let lean = report(&fit(&bench, &by_time, &timed));
    let (whole, macs) = both(&lean, "macs");
    assert!(macs < whole, "{macs} of {whole}");
    // The cost is reported beside the budget, in its unit.
    let (cost, budget) = (number(&lean, "cost"), number(&lean, "budget"));
    assert!(lean.contains("\"cost_unit\":\"us\"") && cost <= budget, "{lean}");
    let told = stdout("tailor", &[&["fit"], &fit(&bench, &by_time, &timed)[..]].concat());
    let words = format!("{:.3} ms (budget {:.3} ms)", cost / 1e3, budget / 1e3);
    assert!(told.contains(&words), "{words} in {told}");

    // Impossible requests are refused before anything is trained.
    let work = work("refused");
    let far = ["--cost", "latency", "--table", text(&table), "--skips", "5"];
    let cases: [(&[&str], &str); 7] = [
        (&far, "no row for the proxy"),
        (&["--budget", "2M", "--skips", "1"], "multiply-adds, the cost of the leanest network"),
        (&["--budget", "2ms"], "--table"),
        (&["--budget", "1k"], "stem and classifier"),
        (&["--budget", "20M", "--gamma1", "0.1"], "--gamma1"),
        (&["--cost", "latency"], "bench --blocks"),
        (&["--gates", "hard-concrete", "--theta", "0.1"], "--theta"),
    ];
    for (more, want) in cases {
        let (_, why) = failure("tailor", &[&["fit"], &fit(&bench, &work, more)[..]].concat());
        assert!(why.contains(want), "{more:?}: {why}");
        assert!(!work.exists(), "{more:?}");
    }
}

#[test]
fn gates_that_close_and_blocks_dropped_one_by_one_make_a_task() {
    let bench = bench();
    let work = bench.folder.path().join("run");
    report(&fit(&bench, &work, &["--gates", "hard-concrete", "--search", "iterative", "--tolerance", "30"]));
    let document = fs::read_to_string(work.join("report.json")).unwrap();
    assert!(document.contains("\"prune-0\"") && document.contains("\"prune-without-"), "{document}");
    let task = work.join("halves.task");
    let device = ["self-test", "--backbone", text(&bench.backbone), "--task", text(&task)];
    assert!(stdout("edge-runtime", &device).contains("halves"));
}

/// Stands in for Slurm's `sbatch`: runs each script at once, once per array index. `tests/slurm/check` uses
/// the real one.
const SBATCH: &str = r#"#!/bin/bash
set -e
script=$(cat); array=; log=
for word in "$@"; do
    case $word in
        --array=*) array=${word#--array=} ;;
        --output=*) log=${word#--output=} ;;
        --parsable | --job-name=* | --dependency=afterok:7 | --kill-on-invalid-dep=yes | --cpus-per-task=2) ;;
        *) echo "sbatch: $word" >&2; exit 1 ;;
    esac
done
[ -z "$array" ] || numbers=$(seq "${array%-*}" "${array#*-}")
log=${log/\%j.log/1.log}
for number in ${numbers:-1}; do
    SLURM_ARRAY_TASK_ID=$number SLURM_CPUS_PER_TASK=1 SLURM_CPUS_ON_NODE=64 bash -c "$script" >> "${log//\%\%/%}" 2>&1
done
echo '7;cluster'
"#;

#[test]
fn a_sweep_is_the_same_on_one_core_on_two_and_on_a_cluster() {
    let bench = bench();
    let place = |name: &str| bench.folder.path().join(name);
    let bundle = |work: &Path| fs::read(work.join("halves.task")).unwrap();
    let (alone, side_by_side, cluster) = (place("alone"), place("two"), place("the cluster's 50%job"));
    let one = report(&fit(&bench, &alone, &["--search", "sweep", "--theta", "0.01", "--jobs", "1"]));
    let two = report(&fit(&bench, &side_by_side, &["--search", "sweep", "--theta", "0.01", "--jobs", "2"]));
    // All but the places of the files.
    assert_eq!(one.replace(text(&alone), ""), two.replace(text(&side_by_side), ""));
    assert_eq!(bundle(&alone), bundle(&side_by_side));
    let epochs = |work: &Path| {
        let metrics = fs::read_to_string(work.join("metrics.csv")).unwrap();
        let mut stages: Vec<String> =
            metrics.lines().map(|line| line.split(',').take(2).collect::<Vec<_>>().join(" ")).collect();
        stages.sort();
        stages
    };
    assert_eq!(epochs(&alone), epochs(&side_by_side));

    let script = stdout(
        "tailor",
        &[
            &["prune", "--sweep", "--emit", "slurm", "--sbatch=--cpus-per-task=2"],
            &fit(&bench, &cluster, &["--theta", "0.01", "--jobs", "2"])[..],
        ]
        .concat(),
    );
    assert_eq!(script.matches(" --cpus-per-task=2 ").count(), 3, "{script}");
    let cores = "RAYON_NUM_THREADS=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}";
    assert_eq!(script.matches(cores).count(), 3, "{script}");
    let programs = place("programs");
    fs::create_dir(&programs).unwrap();
    fs::write(programs.join("sbatch"), SBATCH).unwrap();
    let path = std::env::join_paths(
        std::iter::once(programs.clone()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let file = place("sweep.sh");
    fs::write(&file, script).unwrap();
    let make = std::process::Command::new("chmod").arg("+x").arg(programs.join("sbatch")).status().unwrap();
    assert!(make.success());
    let submitted =
        std::process::Command::new("bash").arg(&file).env("PATH", path.unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&submitted.stdout).into_owned();
    let log = fs::read_to_string(cluster.join("slurm-prune-1.log")).unwrap_or_default();
    assert!(submitted.status.success(), "{}{log}", String::from_utf8_lossy(&submitted.stderr));
    assert!(said.contains("jobs 7, 7, 7"), "{said}");
    assert!(log.contains("0 dropped: validation") && log.contains("9 dropped: validation"), "{log:?} {said}");
    assert_eq!(bundle(&alone), bundle(&cluster));

    let (_, why) = failure(
        "tailor",
        &[&["prune", "--drop", "10"], &fit(&bench, &cluster, &["--theta", "0.01"])[..]].concat(),
    );
    assert!(why.contains("at most 9"), "{why}");
    assert!(program("tailor").args(["prune", "--data", "x"]).output().unwrap().status.code() == Some(2));
}
