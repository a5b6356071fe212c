//! The `edge-runtime` command over a store of random tasks.

use super::store;
use edge_runtime::kernels::Isa;
use edge_runtime::{Packing, pack_backbone};
use std::io::Write;
use std::process::{Command, Output, Stdio};

pub fn edge_runtime(arguments: &[&str], stdin: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-runtime"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that refuses its arguments does not read its input.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

pub fn text(output: &Output) -> (String, String) {
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

pub fn ok(arguments: &[&str], stdin: &[u8]) -> String {
    let output = edge_runtime(arguments, stdin);
    let (out, err) = text(&output);
    assert!(output.status.success(), "{arguments:?}: {err}");
    out
}

#[test]
fn frames_alternate_between_tasks() {
    let directory = store::directory(&store::packed("cifar-resnet20-a", 12, 21));
    let at = directory.path().to_str().unwrap();
    let ppm = [b"P6 4 3 255\n".as_slice(), &[200; 36]].concat();
    let stream = ppm.repeat(4);
    let out = ok(&["run", "--store", at, "--alternate", "--json", "--metrics", "stdout", "-"], &stream);
    let frames: Vec<&str> = out.lines().filter(|line| line.starts_with('{')).collect();
    let tasks = ["digits", "fashion", "signs", "digits"];
    assert_eq!(frames.len(), 4);
    for (line, task) in frames.iter().zip(tasks) {
        assert!(line.contains(&format!("\"task\":\"{task}\"")), "{line}");
        assert!(line.contains(&format!("\"label\":\"{task} ")), "{line}");
        assert!(line.contains("\"score\":0.") && line.contains("\"us\":"), "{line}");
    }
    assert!(
        out.contains("edge_runtime_frames_total 4") && out.contains("edge_runtime_switches_total 4"),
        "{out}"
    );

    // A deadline that nothing meets: frames are answered, marked and counted, and not an error.
    let late = ["run", "--store", at, "--deadline-ms", "0.0001", "--json", "--metrics", "stdout", "-"];
    let out = ok(&late, &stream);
    assert_eq!(out.matches("\"late\":true").count(), 4, "{out}");
    for line in [
        "edge_runtime_missed_deadlines_total 4",
        "edge_runtime_failed_frames_total 0",
        "edge_runtime_resident_tasks 3",
        "edge_runtime_frame_seconds_count 4",
    ] {
        assert!(out.lines().any(|l| l == line), "{line}: {out}");
    }

    // A script and a raw stream; streamed loading gives the same answers.
    let raw = [7u8; 5 * 4 * 3 * 2];
    let common = ["--script", "signs,digits", "--raw", "5x4x3", "--json", "--store", at, "-"];
    let answers = |extra: &[&str]| -> Vec<String> {
        let out = ok(&[&["run"], extra, &common].concat(), &raw);
        out.lines().map(|line| line.split("\"us\"").next().unwrap().to_owned()).collect()
    };
    let plain = answers(&[]);
    assert_eq!(plain.len(), 2);
    assert!(plain[0].contains("signs") && plain[1].contains("digits"), "{plain:?}");
    assert_eq!(plain, answers(&["--stream", "--threads", "2"]));
}

#[test]
#[cfg(feature = "png")]
fn png_files_are_read() {
    let directory = store::directory(&store::packed("cifar-resnet20-a", 12, 21));
    let at = directory.path().to_str().unwrap();
    let pixels: Vec<u8> = (0..4 * 3 * 3).map(|i| (i * 7) as u8).collect();
    let file = directory.path().join("x.png");
    let mut encoder = png::Encoder::new(std::fs::File::create(&file).unwrap(), 4, 3);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    let score = |out: String| out.split("\"us\"").next().unwrap().to_owned();
    let from_png =
        score(ok(&["run", "--store", at, "--task", "digits", "--json", file.to_str().unwrap()], b""));
    let ppm = [b"P6 4 3 255\n".as_slice(), &pixels].concat();
    let from_ppm = score(ok(&["run", "--store", at, "--task", "digits", "--json", "-"], &ppm));
    assert_eq!(from_png, from_ppm);

    // One PNG on standard input is read; a second one after it is not ignored.
    let bytes = std::fs::read(&file).unwrap();
    let arguments = ["run", "--store", at, "--task", "digits", "--json", "-"];
    assert!(ok(&arguments, &bytes).contains("\"score\":0."));
    let output = edge_runtime(&arguments, &bytes.repeat(2));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).1.contains("after a PNG image"), "{:?}", text(&output));
}

#[test]
fn tasks_self_test_probe_and_bench_report() {
    let directory = store::directory(&store::packed("cifar-resnet20-b", 12, 22));
    let at = directory.path().to_str().unwrap();
    let out = ok(&["tasks", "--store", at], b"");
    assert_eq!(out.lines().count(), 4, "{out}");
    assert!(out.contains("fashion\t5\t8/9\t"), "{out}");
    let digests = out.lines().skip(1).map(|line| line.split('\t').nth(6).unwrap_or_default());
    let all = ok(&["tasks", "--store", at, "--json"], b"");
    assert!(digests.clone().all(|digest| digest.len() == 16 && all.contains(digest)), "{out}\n{all}");
    assert_eq!(all.matches("\"trust\":\"development\",\"signature\":\"signed with").count(), 3, "{all}");
    let out = ok(&["self-test", "--store", at], b"");
    assert!(out.lines().count() > 3 && out.lines().skip(1).all(|line| line.ends_with("\tok")), "{out}");
    assert!(out.contains("portable"), "{out}");
    assert!(ok(&["probe", "--json"], b"").contains("\"available\":[\"portable\""));

    let out = ok(&["bench", "--store", at, "--frames", "3", "--json"], b"");
    for key in [
        "\"rss_bytes\":",
        "\"frame_ms\":",
        "\"warm_switch_us\":",
        "\"cold_switch_ms\":",
        "\"name\":\"signs\"",
    ] {
        assert!(out.contains(key), "{key}: {out}");
    }
    assert!(!out.contains("null"), "{out}");
    // There is nothing to switch to.
    let alone = ["bench", "--store", at, "--task", "digits", "--frames", "3"];
    let out = ok(&[&alone[..], &["--json"]].concat(), b"");
    assert!(out.contains("\"warm_switch_us\":null,"), "{out}");
    let out = ok(&alone, b"");
    assert_eq!(out.lines().nth(1).and_then(|line| line.split('\t').nth(3)), Some("-"), "{out}");
    let out = ok(&[&alone[..], &["--layers"]].concat(), b"");
    assert!(out.contains("layer1.0.conv1 + layer1.0.bn1 + relu"), "{out}");
}

#[test]
fn latency_tables_have_a_row_for_each_gate() {
    let packed = store::packed("cifar-resnet20-b", 12, 24);
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let int8 = pack_backbone("b", &packed.backbone, Packing::Int8, &[]).unwrap();
    for (precision, bytes) in [("f32", &packed.backbone), ("int8", &int8)] {
        std::fs::write(file("a.backbone"), bytes).unwrap();
        ok(&["bench", "--backbone", &file("a.backbone"), "--blocks", &file("blocks.json")], b"");
        let document = std::fs::read_to_string(file("blocks.json")).unwrap();
        let head =
            format!("\"size\":[12,12],\"isa\":\"{}\",\"precision\":\"{precision}\"", Isa::detect().name());
        assert!(document.contains(&head), "{document}");
        rows_are_those_of_resnet20(&document);
    }
    let skips =
        ["bench", "--backbone", &file("a.backbone"), "--blocks", &file("blocks.json"), "--skips", "few"];
    let (_, why) = text(&edge_runtime(&skips, b""));
    assert!(why.contains("--skips few") && why.contains("dense"), "{why}");
}

fn rows_are_those_of_resnet20(table: &str) {
    let rows: Vec<&str> = table.split("{\"node\":").skip(1).collect();
    let of = |role: &str| {
        let is_it = format!("\"role\":\"{role}\"");
        rows.iter().filter(|row| row.contains(&is_it)).count()
    };
    // Every node but the first has several proxies, which run in one call. The blocks that halve the map are 4 and 7:
    // nodes 3, 2, 1 and 6, 5, 4 are pooled, each once, whatever the number of nodes that read it.
    let counts = ["stem", "head", "block", "proxy", "proxies", "pool", "sum"].map(of);
    assert_eq!(counts, [1, 1, 9, 24, 8, 6, 0], "{table}");
    let us = |node: usize, source: &str, role: &str| -> f64 {
        let start = format!("{node},\"source\":{source},\"role\":\"{role}\",\"us\":");
        let us = rows.iter().find_map(|row| row.strip_prefix(&start)).and_then(|us| us.split('}').next());
        us.and_then(|us| us.parse().ok()).unwrap_or_default()
    };
    for (node, source, role) in [(4, "3", "block"), (1, "0", "proxy"), (4, "3", "pool"), (7, "4", "pool")] {
        assert!(us(node, source, role) > 0.0, "{role} of {node}: {table}");
    }
    // A node's proxies and the call they share have a time together.
    let of_node = ["5", "4", "3"].map(|source| us(6, source, "proxy"));
    assert!(of_node.iter().sum::<f64>() + us(6, "null", "proxies") > 0.0, "{table}");
}

#[test]
fn failures_have_their_exit_codes() {
    let packed = store::packed("cifar-resnet20-b", 12, 23);
    let directory = store::directory(&packed);
    let at = directory.path().to_str().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut damaged = packed.tasks[0].1.clone();
    damaged[200] ^= 1;
    let damaged = file("damaged.bin", &damaged);
    let stranger = file("stranger.bin", &store::packed("cifar-resnet20-b", 12, 24).tasks[0].1);
    let image = file("x.ppm", b"P6 1 1 255 abc");
    let copy = file("copy.bin", &packed.tasks[0].1);
    let newer = file("newer.bin", &store::changed(&packed.tasks[0].1, |manifest| manifest.abi += 1));
    let original = directory.path().join("digits.task");
    let original = original.to_str().unwrap();
    let twice = ["--task", original, "--task", &copy];
    let backbone = ["--backbone", &format!("{at}/net.backbone")];
    let cases: [(&[&str], i32, &str); 20] = [
        (&["run", "--store", at, "--deadline-ms", "-1", &image], 2, "milliseconds"),
        (&["frobnicate"], 2, "self-test"),
        (&["run", "--store", at], 2, "image files"),
        (&["run", "--store", at, "--task", "nothing", &image], 2, "digits"),
        (&["run", "--store", at, "--task", &damaged, &image], 3, "damaged.bin"),
        (&["run", "--store", at, "--task", &stranger, &image], 4, "backbone"),
        (&["run", "--store", at, "--task", &newer, &image], 4, "of the same version"),
        (&["run", "--store", at, "--raw", "4x4x2", &image], 2, "1 (grey) or 3 (RGB)"),
        (&["bench", "--store", at, "--blocks", original], 2, "digits.task"),
        (&["bench", backbone[0], backbone[1], "--blocks", backbone[1]], 2, "net.backbone"),
        (&["run", "--store", at, &damaged], 2, "damaged.bin (frame 1)"),
        (&["run", "--store", "/nowhere", &image], 1, "/nowhere"),
        (&["bench", "--frames", "0", "--store", at], 2, "from 1"),
        (&["bench", "--frames", "18446744073709551615", "--store", at], 2, "from 1 to 1000000"),
        (&["run", "--threads", "18446744073709551615", "--store", at, &image], 2, "from 1 to 256"),
        (&["bench", "--store", at, "fashion"], 2, "`fashion`"),
        (&["probe", "-json"], 2, "--json"),
        (&[&["run"], &backbone[..], &twice, &[&image]].concat(), 2, "copy.bin"),
        (&[&["bench"], &backbone[..], &twice].concat(), 2, "copy.bin"),
        (&["self-test", "--isa", "mmx", "--store", at], 2, "portable"),
    ];
    for (arguments, code, words) in cases {
        let output = edge_runtime(arguments, b"");
        let (out, err) = text(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {err}");
        let failure = err.lines().find(|line| line.starts_with("error[")).unwrap_or_default();
        assert!(failure.contains(words), "{arguments:?}: {err}");
        assert!(out.is_empty(), "{arguments:?}: {out}");
    }
    assert!(std::fs::read(backbone[1]).unwrap() == packed.backbone, "nothing was written over it");
    // Both are tested, and the store is refused.
    let output = edge_runtime(&[&["self-test"], &backbone[..], &twice].concat(), b"");
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(out.matches("digits\t").count() == 2 && err.contains("copy.bin"), "{out}{err}");
    for command in ["run", "tasks", "self-test", "bench", "probe"] {
        assert!(ok(&[command, "--help"], b"").contains("Example"), "{command}");
    }
}

#[test]
fn tasks_that_the_budget_evicted_are_loaded_again() {
    let directory = store::directory(&store::packed("cifar-resnet32-b", 8, 25));
    let at = directory.path().to_str().unwrap();
    let ppm = b"P6 1 1 255\nabc".repeat(6);
    let answers = |extra: &[&str]| -> (Vec<String>, String) {
        let out = ok(
            &[&["run", "--store", at, "--alternate", "--metrics", "stdout"], extra, &["-"]].concat(),
            &ppm,
        );
        let frames = out.lines().filter(|line| line.starts_with("-\t"));
        let evictions = out.lines().find(|line| line.starts_with("edge_runtime_evictions_total"));
        (
            frames.map(|line| line.rsplit_once('\t').unwrap().0.to_owned()).collect(),
            evictions.unwrap().to_owned(),
        )
    };
    let (plain, none) = answers(&[]);
    assert_eq!((plain.len(), none.as_str()), (6, "edge_runtime_evictions_total 0"));
    // One mebibyte has room for two of the three.
    for extra in [&["--budget-mib", "1"][..], &["--budget-mib", "1", "--stream"]] {
        let (answers, evictions) = answers(extra);
        assert_eq!(answers, plain);
        assert_ne!(evictions, none);
    }
}

#[test]
fn a_packed_backbone_is_tested_on_what_it_is_packed_for() {
    let packed = store::packed("cifar-resnet20-b", 12, 28);
    let directory = store::directory(&packed);
    let at = directory.path().to_str().unwrap();
    for isa in Isa::ALL {
        let bytes = pack_backbone("b", &packed.backbone, Packing::For(isa), &[]).unwrap();
        std::fs::write(directory.path().join("net.backbone"), bytes).unwrap();
        let output = edge_runtime(&["self-test", "--store", at], b"");
        let (out, err) = text(&output);
        if !isa.runs_here() {
            assert_eq!(output.status.code(), Some(4), "{isa}: {out}{err}");
            assert!(err.contains(&format!("but this is {} revision", Isa::detect())), "{isa}: {err}");
            continue;
        }
        assert!(output.status.success(), "{isa}: {err}");
        let lines: Vec<&str> = out.lines().skip(1).collect();
        let own = format!("\t{isa}\t");
        assert!(lines.len() == 3 && lines.iter().all(|line| line.contains(&own)), "{out}");
    }
}
