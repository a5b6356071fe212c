//! What the commands report about bundles and refuse to do with them: packed or not, intact or not.

use super::*;
use serde_json::Value;

pub fn json(args: &[&str]) -> Value {
    let said = stdout("tailor", &[args, &["--json"]].concat());
    serde_json::from_str(&said).unwrap_or_else(|e| panic!("{args:?}: {e}: {said}"))
}

/// A task for the images of `bench`.
fn task(bench: &Bench) -> PathBuf {
    let work = bench.folder.path().join("run");
    let mut args = vec!["fit", "--backbone", text(&bench.backbone), "--data", text(&bench.images)];
    args.extend(["--work", text(&work), "--name", "halves"]);
    args.extend(QUICK);
    stdout("tailor", &args);
    work.join("halves.task")
}

/// What `inspect` shows for the kernels of the first layer.
fn first_kernel(shown: &Value) -> [String; 4] {
    let tensors = shown["tensors"].as_array().unwrap();
    let kernel = tensors.iter().find(|tensor| tensor["name"] == "conv1.weight").unwrap();
    ["dtype", "layout", "isa", "revision"].map(|key| kernel[key].to_string().replace('"', ""))
}

#[test]
fn a_backbone_says_what_it_is_packed_for_and_needs() {
    let bench = bench();
    let at = |name: &str| bench.folder.path().join(name);
    let pack = |more: &[&str], out: &Path| {
        json(&[&["pack", text(&bench.backbone), "--out", text(out)], more].concat())
    };
    let files = ["neon", "half", "orin", "bytes"].map(|name| at(&format!("{name}.backbone")));
    let neon = pack(&["--target", "jetson-orin-nano"], &files[0]);
    let half = pack(&["--precision", "f16"], &files[1]);
    let orin = pack(&["--precision", "f16", "--target", "jetson-orin-nano"], &files[2]);
    let bytes = pack(&["--precision", "int8"], &files[3]);
    let plain = json(&["inspect", text(&bench.backbone)]);
    assert_eq!(
        (&plain["variant"], &plain["precision"], &plain["format"]),
        (&"f32".into(), &"f32".into(), &"2.0".into())
    );
    assert_eq!(
        (plain["abi"].as_u64(), plain["security_counter"].as_u64(), plain["golden"].as_u64()),
        (Some(1), Some(0), Some(0))
    );
    assert_eq!(first_kernel(&plain), ["f32", "canonical", "null", "null"]);
    assert_eq!(plain["preprocess"]["mean"], serde_json::json!([0.5071, 0.4865, 0.4409]));
    assert_eq!(plain["preprocess"]["resize"], "bilinear");

    let cases = [
        (&neon, "f32-neon", "f32", ["f32", "blocked", "neon", "2"], "devices with neon:"),
        (&half, "f16", "f16", ["f16", "canonical", "null", "null"], "any device (reordered when"),
        (&orin, "f16-neon-fp16", "f16", ["f16", "blocked", "neon-fp16", "2"], "devices with neon-fp16:"),
        (&bytes, "int8", "int8", ["i8", "blocked", "portable", "1"], "runs int8 tasks only"),
    ];
    for ((packed, variant, precision, kernel, words), file) in cases.into_iter().zip(&files) {
        let shown = json(&["inspect", text(file)]);
        assert_eq!((&shown["variant"], &shown["precision"]), (&variant.into(), &precision.into()));
        assert_eq!(first_kernel(&shown), kernel);
        assert_eq!(shown["backbone"], plain["backbone"]);
        // `pack` and `inspect` agree: on the target's needs, or on the maximum over all devices.
        let arithmetic = if variant == "f16" { "f16 or f32" } else { precision };
        assert_eq!((&packed["arithmetic"], &shown["arithmetic"]), (&arithmetic.into(), &arithmetic.into()));
        let of = |isa: &Value, key: &str| isa[key].as_u64().unwrap();
        for key in ["arena", "scratch", "task", "kernels"] {
            let all = shown["memory_bytes"].as_object().unwrap();
            let want = match variant {
                "f32-neon" => of(&all["neon"], key),
                "f16-neon-fp16" => of(&all["neon-fp16"], key),
                _ => all.values().map(|isa| of(isa, key)).max().unwrap(),
            };
            assert_eq!(of(&packed["memory_bytes"], key), want, "{variant}: {key}");
        }
        let shown = stdout("tailor", &["inspect", "--tensors", text(file)]);
        let tensor = format!("{} {}", kernel[0], kernel[1]);
        let row = shown.lines().find(|line| line.contains("conv1.weight ")).unwrap();
        assert!(row.contains(&tensor) && row.contains(kernel[2]) == (kernel[2] != "null"), "{row}");
        assert_eq!(shown.contains("f16 on neon-fp16"), precision == "f16", "{shown}");
        let memory = match variant {
            "int8" => "int8 on avx2",
            "f16-neon-fp16" => "f16 on neon-fp16",
            _ => "f32 on avx2",
        };
        for words in [words, memory, "mean 0.5071, 0.4865, 0.4409", "golden vectors   0", "runtime ABI 1"] {
            assert!(shown.contains(words), "{words}: {shown}");
        }
    }
    let isas = [&neon, &half, &orin, &bytes].map(|packed| &packed["isa"]);
    assert_eq!(isas, ["neon", "any", "neon-fp16", "any"]);
    let memory = |packed: &Value| packed["memory_bytes"]["arena"].as_u64().unwrap();
    assert!(memory(&bytes) < memory(&half), "maps of bytes are smaller");

    // A packed file cannot be packed again: lost precision does not come back.
    for (file, form) in
        files.iter().zip(["f32 for neon, revision 2", "f16", "f16 for neon-fp16, revision 2", "int8"])
    {
        let out = at("again");
        let again = ["pack", text(file), "--precision", "int8", "--out", text(&out)];
        let (code, why) = failure("tailor", &again);
        assert!(code == 2 && why.contains(&format!("already packed ({form}): start from what")), "{why}");
    }
    assert!(!at("again").exists());
}

#[test]
fn packed_files_are_measured_as_the_device_computes_them() {
    let bench = bench();
    let at = |name: &str| bench.folder.path().join(name);
    let task = task(&bench);
    let page = at("page.html");
    let report = json(&["report", text(&at("run")), "-o", text(&page)]);
    assert_eq!(report["bytes"].as_u64(), Some(std::fs::metadata(&page).unwrap().len()));
    assert_eq!((report["file"].as_str(), report["runs"].as_u64()), (Some(text(&page)), Some(1)));
    let on = |backbone: &Path, more: &[&str]| -> Vec<String> {
        let mut words = vec!["eval", "--data", text(&bench.images), "--backbone", text(backbone)];
        words.extend(more);
        words.into_iter().map(String::from).collect()
    };
    let measure = |words: &[String]| json(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let refuse = |words: &[String]| failure("tailor", &words.iter().map(String::as_str).collect::<Vec<_>>());

    let plain = measure(&on(&bench.backbone, &["--task", text(&task)]));
    assert_eq!((&plain["engine"], plain["majority"].as_f64()), (&"tailor".into(), Some(0.5)));
    let right = |measured: &Value, class: usize| measured["per_class"][class]["right"].as_u64().unwrap();
    assert_eq!(plain["per_class"][1]["class"], "below");
    assert_eq!(plain["accuracy"].as_f64().unwrap() * 12.0, (right(&plain, 0) + right(&plain, 1)) as f64);

    for precision in ["int8", "f16"] {
        let (backbone, packed) = (at(&format!("{precision}.backbone")), at(&format!("{precision}.task")));
        stdout(
            "tailor",
            &["pack", text(&bench.backbone), "--precision", precision, "--out", text(&backbone)],
        );
        let pack = ["pack", text(&task), "--precision", precision, "--backbone", text(&bench.backbone)];
        let pack = [&pack[..], &["--data", text(&bench.images), "--max-drop", "100"]].concat();
        let said = json(&[&pack[..], &["--out", text(&packed)]].concat());
        assert!(said["memory_bytes"]["task"].as_u64().unwrap() > 0 && said["isa"] == "any", "{said}");
        let shown = stdout("tailor", &[&pack[..], &["--out", text(&packed)]].concat());
        let words = if precision == "int8" { "of scratch in int8 on" } else { "of scratch in f16 or f32 on" };
        assert!(shown.contains(words), "{shown}");

        let measured = measure(&on(&backbone, &["--task", text(&packed)]));
        assert_eq!((&measured["engine"], &measured["accuracy"]), (&"edge-runtime".into(), &said["accuracy"]));
        let (code, why) = refuse(&on(&backbone, &["--task", text(&packed), "--size", "40"]));
        assert!(code == 2 && why.contains("--size 40"), "{why}");
        let again = ["pack", text(&packed), "--precision", precision, "--backbone", text(&bench.backbone)];
        let (code, why) = failure("tailor", &[&again[..], &["--out", text(&at("again"))]].concat());
        assert!(code == 2 && why.contains("already packed") && why.contains("`tailor fit`"), "{why}");
        let unmeasured = ["pack", text(&task), "--precision", precision, "--backbone", text(&bench.backbone)];
        let (code, why) = failure("tailor", &[&unmeasured[..], &["--out", text(&at("again"))]].concat());
        assert!(code == 2 && why.contains("--data") && why.contains("required"), "{why}");
        let beside = ["pack", text(&task), "--precision", "f16", "--backbone", text(&backbone)];
        let (code, why) = failure("tailor", &[&beside[..], &["--out", text(&at("again"))]].concat());
        assert!(code == 2 && why.contains("already packed") && why.contains("`tailor import`"), "{why}");
    }
    // Kernels in this machine's order, and its own network in f16.
    let packed = at("here.backbone");
    for target in ["x86-avx2", "x86-avx512", "jetson-orin-nano"] {
        stdout("tailor", &["pack", text(&bench.backbone), "--target", target, "--out", text(&packed)]);
        let words = on(&packed, &["--task", text(&task)]);
        let isa: edge_runtime::kernels::Isa = targets_isa(target).parse().unwrap();
        if isa.runs_here() {
            assert_eq!(measure(&words)["engine"], "edge-runtime", "{target}");
        } else {
            let (code, why) = refuse(&words);
            assert!(code == 4 && why.contains(&format!("a machine with {isa}")), "{target}: {why}");
        }
    }
    let (code, why) = refuse(&on(&at("int8.backbone"), &[]));
    assert!(code == 2 && why.contains("--task"), "{why}");
    let (code, why) = refuse(&on(&bench.backbone, &["--task", text(&at("int8.task"))]));
    assert!(code == 4 && why.contains("int8.task") && why.contains("packing `int8`"), "{why}");
    let (_, why) = refuse(&on(&at("f16.backbone"), &[]));
    assert!(why.contains("images of 100 classes, as many as the network has; these have 2"), "{why}");
    let (code, why) =
        refuse(&on(&at("int8.backbone"), &["--task", text(&at("int8.task")), "--device", "cuda"]));
    assert!(code == 2 && why.contains("--device cuda"), "{why}");
    let (code, why) = refuse(&on(&bench.backbone, &["--task", text(&task), "--split", "val"]));
    assert!(code == 2 && why.contains("--split val"), "{why}");

    // Each picture under the other's name: an accuracy that is worth nothing is not given without a word.
    let (above, below) = (bench.images.join("test/above"), bench.images.join("test/below"));
    for (from, to) in [(&above, &at("aside")), (&below, &above), (&at("aside"), &below)] {
        std::fs::rename(from, to).unwrap();
    }
    let words = on(&bench.backbone, &["--task", text(&task)]);
    let said = run("tailor", &words.iter().map(String::as_str).collect::<Vec<_>>());
    let warnings = String::from_utf8(said.stderr).unwrap();
    assert!(
        said.status.success() && warnings.contains("no clear gain over always answering `above`"),
        "{warnings}"
    );
}

/// The instruction set of a target, as `tailor targets` lists it.
fn targets_isa(target: &str) -> String {
    let listed = stdout("tailor", &["targets", "--json"]);
    let profiles = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let profile = profiles.into_iter().find(|profile| profile["name"] == target).unwrap();
    profile["isa"].as_str().unwrap().to_owned()
}

#[test]
fn outputs_never_overwrite_their_inputs() {
    let bench = bench();
    let at = |name: &str| bench.folder.path().join(name);
    let (net, key, weights) = (text(&bench.backbone), at("release.key"), at("w.backbone"));
    stdout("tailor", &["keygen", "--out", text(&key)]);
    std::fs::copy(samples().join("cifar100-resnet20.safetensors"), &weights).unwrap();
    let roundabout = bench.images.join("../net.backbone");
    let before: Vec<Vec<u8>> =
        [&bench.backbone, &key, &weights].map(|file| std::fs::read(file).unwrap()).into();
    let (around, key, weights) = (text(&roundabout), text(&key), text(&weights));
    let nowhere = at("none/x");
    let neon = ["--target", "jetson-orin-nano"];
    let cases = [
        (vec!["pack", net, neon[0], neon[1], "--out", around], "another file than"),
        (vec!["pack", net, neon[0], neon[1], "--key", key, "--out", key], "another file than"),
        (vec!["pack", net, neon[0], neon[1], "--out", text(&nowhere)], "none is not one"),
        (vec!["pack", net, neon[0], neon[1], "--out", text(&bench.images)], "this is a folder"),
        (vec!["import", weights], "another file than"),
        (vec!["import", weights, "--out", text(&nowhere)], "none is not one"),
        (vec!["export", "--backbone", net, "--onnx", around], "another file than"),
        (vec!["export", "--backbone", net, "--onnx", text(&nowhere)], "none is not one"),
        (vec!["sign", net, "--key", key, "--out", key], "another file than"),
        (vec!["keygen", "--out", text(&nowhere)], "none is not one"),
        (vec!["keygen", "--out", key], "never overwritten"),
        (vec!["pack", net, "--out", "x"], "give f16 or int8, or the --target"),
        (vec!["pack", net, neon[0], neon[1], "--out", "x", "--data", "y"], "--data"),
        (vec!["pack", net, neon[0], neon[1], "--out", "x", "--bits", "7"], "--bits 7"),
        (vec!["pack", net, neon[0], neon[1], "--out", "x", "--backbone", "y"], "--backbone y: only applies"),
        (
            vec!["pack", net, neon[0], neon[1], "--out", "x", "--calibrate", "4"],
            "--calibrate 4: only applies",
        ),
        (vec!["pack", net, neon[0], neon[1], "--out", "x", "--max-drop", "0"], "--max-drop 0: has no effect"),
        (vec!["pack", net, "--precision", "int8", "--out", "x", "--calibrate", "4"], "without --data"),
        (vec!["pack", net, "--precision", "int8", "--out", "x", "--max-drop", "nan"], "from -100"),
        (vec!["pack", net, "--precision", "int8", "--out", "x", "--max-drop", "101"], "from -100"),
        (vec!["sign", net], "--key <FILE>|--remove <KEYID>"),
        (vec!["pack", net, neon[0], neon[1], "--out", "x", "--fact", "no value"], "--fact"),
    ];
    for (command, word) in cases {
        let (code, why) = failure("tailor", &command);
        assert!(code == 2 && why.contains(word), "{command:?}: {code}, {why}");
    }
    let after: Vec<Vec<u8>> = [&bench.backbone, &at("release.key"), &at("w.backbone")]
        .map(|file| std::fs::read(file).unwrap())
        .into();
    assert!(after == before, "an input was written over");
}
