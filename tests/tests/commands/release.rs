//! What a release is made of: signatures, keys, facts and counters.

use super::files::json;
use super::*;
use bundles::container::{Bundle, Writer};
use serde_json::Value;

#[test]
fn signatures_are_made_checked_and_required() {
    let bench = bench();
    let (key, other) = (bench.folder.path().join("release.key"), bench.folder.path().join("other.key"));
    let made = stdout("tailor", &["keygen", "--out", text(&key), "--name", "release"]);
    let (_, id) = made.trim_end().trim_end_matches(')').rsplit_once("key ").unwrap();
    stdout("tailor", &["keygen", "--out", text(&other)]);
    let (_, why) = failure("tailor", &["keygen", "--out", text(&key)]);
    assert!(why.contains("never overwritten"), "{why}");
    let public = |key: &Path| format!("{}.pub", text(key));
    let file = text(&bench.backbone);

    assert!(stdout("tailor", &["verify", file]).contains("development key"));
    assert_eq!(failure("tailor", &["verify", file, "--key", &public(&key)]).0, 3);
    stdout("tailor", &["sign", file, "--key", text(&key)]);
    assert!(stdout("tailor", &["verify", file, "--key", &public(&key)]).contains("signed by release"));
    assert_eq!(failure("tailor", &["verify", file, "--key", &public(&other)]).0, 3);

    let mut bytes = std::fs::read(&bench.backbone).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bench.backbone, &bytes).unwrap();
    // No signature vouches for a damaged file, and no copy hides the damage.
    let out = bench.folder.path().join("out.backbone");
    let commands: [&[&str]; 5] = [
        &["verify", file],
        &["sign", file, "--key", text(&other)],
        &["sign", file, "--remove", id],
        &["pack", file, "--counter", "1", "--out", text(&out)],
        &["pack", file, "--target", "jetson-orin-nano", "--out", text(&out)],
    ];
    for command in commands {
        let (code, why) = failure("tailor", command);
        assert!(code == 3 && why.contains("hash mismatch"), "{command:?}: {code}, {why}");
        assert!(std::fs::read(&bench.backbone).unwrap() == bytes && !out.exists(), "{command:?}");
    }
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
        (&[], "--precision f32: the task is f32 already: give f16 or int8, or a --fact"),
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
