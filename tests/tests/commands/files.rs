//! What the commands report about bundles and refuse to do with them: packed or not, signed or not, intact or
//! not.

use super::*;
use bundles::container::{Bundle, Writer};
use serde_json::Value;

fn json(args: &[&str]) -> Value {
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
        (vec!["pack", net, "--out", "x"], "give another, or the --target"),
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

#[test]
fn verify_reports_error_codes_and_checks_ids_against_kernels() {
    let bench = bench();
    let at = |name: &str| bench.folder.path().join(name);
    let key = at("release.key");
    let made = json(&["keygen", "--out", text(&key), "--name", "release"]);
    let public = made["public"].as_str().unwrap();
    assert_eq!((made["file"].as_str(), made["name"].as_str()), (Some(text(&key)), Some("release")));
    let net = text(&bench.backbone);
    let development = json(&["verify", net]);
    assert_eq!((&development["trust"], &development["trusted"]), (&"development".into(), &false.into()));

    let signed = json(&["sign", net, "--key", text(&key)]);
    assert_eq!((&signed["key"], &signed["signers"][0]), (&made["key"], &made["key"]));
    let unknown = json(&["verify", net]);
    let trusted = json(&["verify", net, "--key", public]);
    let shown = json(&["inspect", net, "--key", public]);
    assert_eq!((&unknown["trust"], &unknown["trusted"]), (&"unknown".into(), &false.into()));
    for said in [&trusted, &shown] {
        assert_eq!((&said["trust"], &said["trusted"]), (&"trusted".into(), &true.into()));
        assert_eq!((&said["signers"][0], &said["digest"]), (&made["key"], &signed["digest"]));
        assert_eq!(&said["backbone"], &unknown["backbone"]);
    }
    assert_eq!(trusted["backbone_computed"], true);
    let text_of = |more: &[&str]| stdout("tailor", &[&["inspect", net], more].concat());
    let id = made["key"].as_str().unwrap();
    assert!(text_of(&[]).contains(&format!("{id} (unknown)")));
    assert!(text_of(&["--key", public]).contains(&format!("{id} (release, trusted)")));

    let packed = at("packed.backbone");
    stdout("tailor", &["pack", net, "--precision", "int8", "--out", text(&packed)]);
    assert_eq!(json(&["verify", text(&packed)])["backbone_computed"], false);

    // Intact and signed, but not the backbone it claims to be.
    let bytes = std::fs::read(&bench.backbone).unwrap();
    let mut lying = Writer::of(&Bundle::parse(&bytes).unwrap()).unwrap();
    lying.backbone([5; 32], "f32");
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let other = json(&["keygen", "--out", text(&at("other.key"))]);
    let cases = [
        (lying.finish(&[]).unwrap(), "hash-mismatch", 3),
        (damaged, "hash-mismatch", 3),
        (bytes[..bytes.len() - 1].to_vec(), "truncated", 3),
        (b"nothing at all".to_vec(), "bad-magic", 3),
    ];
    let bad = at("bad.backbone");
    let fails = |args: &[&str], code: &str, exit: i32| {
        let output = run("tailor", &[args, &["--json"]].concat());
        let line: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((line["code"].as_str(), output.status.code()), (Some(code), Some(exit)), "{line}");
        assert!(line["error"].as_str().unwrap().contains(line["file"].as_str().unwrap()), "{line}");
    };
    for (bytes, code, exit) in cases {
        std::fs::write(&bad, bytes).unwrap();
        fails(&["verify", text(&bad)], code, exit);
    }
    fails(&["verify", text(&at("absent"))], "io", 1);
    fails(&["verify", net, "--key", other["public"].as_str().unwrap()], "untrusted", 3);
}

#[test]
fn old_keys_are_rotated_out() {
    let bench = bench();
    let net = text(&bench.backbone);
    let keys: Vec<(String, String)> = (0..5)
        .map(|i| {
            let made = json(&["keygen", "--out", text(&bench.folder.path().join(format!("{i}.key")))]);
            (made["file"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned())
        })
        .collect();
    for (file, _) in &keys[..4] {
        stdout("tailor", &["sign", net, "--key", file]);
    }
    let digest = json(&["verify", net])["digest"].clone();
    let (code, why) = failure("tailor", &["sign", net, "--key", &keys[4].0]);
    assert!(code == 2 && why.contains("--remove KEYID") && why.contains(&keys[0].1), "{why}");
    let rotated = json(&["sign", net, "--remove", &keys[0].1, "--remove", &keys[1].1, "--key", &keys[4].0]);
    assert_eq!((&rotated["digest"], rotated["removed"][1].as_str()), (&digest, Some(keys[1].1.as_str())));
    let mut left: Vec<&str> = keys[2..].iter().map(|(_, id)| id.as_str()).collect();
    left.sort_unstable();
    let said = json(&["verify", net]);
    let mut signers: Vec<&str> =
        said["signers"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    signers.sort_unstable();
    assert_eq!(signers, left);
    let (code, why) = failure("tailor", &["sign", net, "--remove", &keys[0].1]);
    assert!(code == 2 && why.contains("no signature by"), "{why}");
    for id in left {
        stdout("tailor", &["sign", net, "--remove", id]);
    }
    assert_eq!(json(&["verify", net])["trust"], "unsigned");
}

#[test]
fn facts_and_counter_are_set_and_kept() {
    let bench = bench();
    let at = |name: &str| bench.folder.path().join(name);
    let (first, second) = (at("first.backbone"), at("second.backbone"));
    let pack = ["pack", text(&bench.backbone), "--precision", "f16", "--counter", "7"];
    let facts = ["--fact", "batch=A=7", "--fact", "top1=best", "--out", text(&first)];
    stdout("tailor", &[&pack[..], &facts].concat());
    let before = json(&["inspect", text(&bench.backbone)]);
    let shown = json(&["inspect", text(&first)]);
    assert_eq!((&shown["facts"]["batch"], &shown["facts"]["top1"]), (&"A=7".into(), &"best".into()));
    assert_eq!((before["security_counter"].as_u64(), shown["security_counter"].as_u64()), (Some(0), Some(7)));
    assert_eq!(shown["facts"].as_object().unwrap().len(), before["facts"].as_object().unwrap().len() + 1);
    assert!(stdout("tailor", &["inspect", text(&first)]).contains("7 (stored by devices"));

    // What is not given is kept from the input.
    stdout("tailor", &["pack", text(&bench.backbone), "--precision", "f16", "--out", text(&second)]);
    let shown = json(&["inspect", text(&second)]);
    assert_eq!(
        (&shown["facts"], &shown["security_counter"]),
        (&before["facts"], &before["security_counter"])
    );
}

#[test]
fn an_f32_file_is_released_as_it_is() {
    let bench = bench();
    let at = |name: &str| bench.folder.path().join(name);
    let (key, task, out) = (at("release.key"), at("source.task"), at("released"));
    std::fs::write(&task, source_task(&bench)).unwrap();
    let made = json(&["keygen", "--out", text(&key)]);
    let facts = ["--fact", "build=1.4", "--counter", "7", "--out", text(&out)];
    for file in [&bench.backbone, &task] {
        let before = json(&["inspect", text(file)]);
        let pack = [&["pack", text(file)], &facts[..]].concat();
        let said = json(&[&pack[..], &["--key", text(&key)]].concat());
        assert_eq!(said["bytes"].as_u64(), Some(std::fs::metadata(&out).unwrap().len()));
        let after = json(&["inspect", text(&out)]);
        assert_eq!((&after["facts"]["build"], after["security_counter"].as_u64()), (&"1.4".into(), Some(7)));
        assert_eq!(after["signers"], serde_json::json!([made["key"]]));
        for kept in ["kind", "precision", "backbone", "tensors", "stored", "golden"] {
            assert_eq!(after[kept], before[kept], "{kept}");
        }
        let tensors = [file, &out].map(|file| {
            let bytes = std::fs::read(file).unwrap();
            let bundle = Bundle::parse(&bytes).unwrap();
            let names = bundle.manifest().sections.iter().map(|section| &section.name);
            names.map(|name| bundle.decode_f32(name).unwrap()).collect::<Vec<_>>()
        });
        assert!(tensors[0] == tensors[1], "the numbers of {}", file.display());
        stdout("tailor", &pack);
        assert!(stdout("tailor", &["verify", text(&out)]).contains("development key"));
    }

    std::fs::remove_file(&out).unwrap();
    let refused: [(&[&str], &str); 6] = [
        (&[], "--precision f32: the task is f32 already: give another, or a --fact"),
        (&["--counter", "1", "--target", "x86-avx2"], "--target x86-avx2: only applies to backbones"),
        (&["--counter", "1", "--backbone", "y"], "--backbone y: not with f32"),
        (&["--counter", "1", "--data", "y"], "--data y: not with f32"),
        (&["--precision", "f16", "--target", "x86-avx2"], "--target x86-avx2: only applies to backbones"),
        (&["--precision", "f16", "--calibrate", "3"], "--calibrate 3: only applies to --precision int8"),
    ];
    for (more, words) in refused {
        let (code, why) = failure("tailor", &[&["pack", text(&task), "--out", text(&out)], more].concat());
        assert!(code == 2 && why.contains(words) && !out.exists(), "{more:?}: {code}, {why}");
    }
}
