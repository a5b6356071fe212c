//! What a command says of the images it is given: what there are, what may be meant otherwise, what to do.

use super::*;

/// (exit code, stderr) of the shortest `fit`.
fn fit(bench: &Bench, data: &Path) -> (i32, String) {
    let work = bench.folder.path().join("run");
    let mut args =
        vec!["fit", "--backbone", text(&bench.backbone), "--data", text(data), "--work", text(&work)];
    args.extend(["--epochs", "1,1,1", "--until", "teach", "--validation", "0.34"]);
    let output = run("tailor", &args);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_was_found_is_said_once() {
    let bench = bench();
    std::fs::create_dir_all(bench.images.join("dev")).unwrap();
    let place = bench.images.join("train/above/2023");
    std::fs::create_dir(&place).unwrap();
    picture("above", 50, 0).save(place.join("x.png")).unwrap();
    let (code, said) = fit(&bench, &bench.images);
    assert_eq!(code, 0, "{said}");
    let images = text(&bench.images);
    let lines = [
        format!(
            "{images}: 2 classes, 49 training images (below has 24, the fewest; above 25, the most); no \
             val/ (the --validation fraction is held out); 12 in test/; ignored: dev/"
        ),
        format!(
            "tailor: {images}: images deeper than train/CLASS/ count as that class: 1, the first \
             `train/above/2023/x.png` as `above`"
        ),
        // The bench's test images are training images, too.
        format!(
            "tailor: {images}: 12 of 12 images of test also occur in train, the first test/above/0.png (as \
             train/above/0.png): accuracy on them says little about new images"
        ),
    ];
    for line in lines {
        assert_eq!(said.lines().filter(|other| **other == line).count(), 1, "{line}\n{said}");
    }

    // Read for two backbones, and said once.
    let work = bench.folder.path().join("depth");
    let other = bench.folder.path().join("other.backbone");
    std::fs::copy(&bench.backbone, &other).unwrap();
    let mut depth =
        vec!["protocol", "depth", "--backbone", text(&bench.backbone), "--backbone", text(&other)];
    depth.extend(["--data", images, "--work", text(&work), "--epochs", "1,1,1", "--validation", "0.34"]);
    let output = run("tailor", &depth);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    for words in ["training images", "images deeper than", "says little about new images"] {
        assert_eq!(said.matches(words).count(), 1, "{words}: {said}");
    }
}

#[test]
fn an_image_held_out_of_one_class_and_kept_in_another_is_named_once() {
    let bench = bench();
    // Nearly half of such images are divided.
    for i in 0..24 {
        let twin = bench.images.join(format!("train/below/twin-{i}.png"));
        std::fs::copy(bench.images.join(format!("train/above/{i}.png")), twin).unwrap();
    }
    let (code, said) = fit(&bench, &bench.images);
    assert_eq!(code, 0, "{said}");
    let lines: Vec<&str> =
        said.lines().filter(|line| line.contains("of the held-out part of train also occur in")).collect();
    let [line] = lines[..] else { panic!("{said}") };
    assert!(line.starts_with("tailor: ") && line.contains(" the rest of it, the first train/"), "{line}");
}

#[test]
fn images_that_lie_otherwise_are_told_where_to_go() {
    let bench = bench();
    let train = bench.images.join("train");
    let (code, said) = fit(&bench, &train);
    assert!(code == 1 && said.contains(&format!("give {} instead", text(&bench.images))), "{said}");
    let flat = bench.folder.path().join("flat");
    std::fs::rename(&train, &flat).unwrap();
    let (code, said) = fit(&bench, &flat);
    assert!(
        code == 1 && said.contains("images in above/, below/") && said.contains("train/above/"),
        "{said}"
    );
}

#[test]
fn a_class_with_one_image_is_found_before_any_is_decoded() {
    let bench = bench();
    let only = bench.images.join("train/single/0.png");
    std::fs::create_dir_all(only.parent().unwrap()).unwrap();
    std::fs::remove_dir_all(bench.images.join("test")).unwrap();
    std::fs::write(&only, b"not a picture").unwrap();
    let work = bench.folder.path().join("source");
    let (code, said) = failure("tailor", &pretrain(&bench, &work, &[]));
    let want = format!("tailor: {}: the only image of its class; at least two", text(&only));
    assert!(code == 1 && said.starts_with(&want), "{said}");
    let (code, said) = fit(&bench, &bench.images);
    assert!(code == 1 && said.starts_with(&want), "{said}");
    // Where nothing is held out, one will do.
    picture("above", 60, 90).save(&only).unwrap();
    let mut all = pretrain(&bench, &work, &["--epochs", "1"]);
    let share = all.iter().position(|word| *word == "0.25").unwrap();
    all[share] = "0";
    assert!(stdout("tailor", &all).contains("\"val_n\":null"));
}
