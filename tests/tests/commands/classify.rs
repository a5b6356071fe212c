//! `tailor classify`: answers for new photographs, beside those of the device's own program.

use super::*;
use serde_json::Value;

/// A task that tells bright above from bright below, in three precisions, each with its backbone.
fn tasks(bench: &Bench) -> [(PathBuf, PathBuf); 3] {
    let at = |name: &str| bench.folder.path().join(name);
    let (work, task) = (at("run"), at("run").join("halves.task"));
    let mut fit = vec!["fit", "--backbone", text(&bench.backbone), "--data", text(&bench.images)];
    fit.extend(["--work", text(&work), "--name", "halves"]);
    stdout("tailor", &[&fit[..], &QUICK].concat());
    let packed = ["f16", "int8"].map(|precision| {
        let (backbone, small) = (at(&format!("{precision}.backbone")), at(&format!("{precision}.task")));
        let pack = |file, more: &[&str]| {
            stdout("tailor", &[&["pack", text(file), "--precision", precision], more].concat())
        };
        pack(&bench.backbone, &["--out", text(&backbone)]);
        let mut more = vec!["--backbone", text(&bench.backbone), "--data", text(&bench.images)];
        more.extend(["--max-drop", "100", "--out", text(&small)]);
        pack(&task, &more);
        (backbone, small)
    });
    let [f16, int8] = packed;
    [(bench.backbone.clone(), task), f16, int8]
}

fn objects(lines: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(lines).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn new_photographs_are_answered_as_on_the_device() {
    let bench = bench();
    let tasks = tasks(&bench);
    // What a camera gives: colour, another size, and files that nobody can read beside those that are fine.
    let new = bench.folder.path().join("new");
    std::fs::create_dir_all(new.join("today")).unwrap();
    let mut pictures: Vec<PathBuf> =
        (0..4).map(|i| bench.images.join(format!("test/above/{i}.png"))).collect();
    for (i, class) in ["above", "below"].into_iter().enumerate() {
        let grey =
            image::imageops::resize(&picture(class, 7, 0), 57, 40, image::imageops::FilterType::Nearest);
        let colour = image::RgbImage::from_fn(57, 40, |x, y| {
            let [level] = grey.get_pixel(x, y).0;
            image::Rgb([level, level / 2, x as u8])
        });
        pictures.push(new.join(format!("today/{i}.png")));
        colour.save(&pictures[4 + i]).unwrap();
    }
    let deep = new.join("today/deep.png");
    let wide = |x: u32, y: u32| image::Rgb([(x * 1149) as u16, (y * 1637) as u16, (x * y * 28 + 200) as u16]);
    image::ImageBuffer::from_fn(57, 40, wide).save(&deep).unwrap();
    pictures.push(deep);
    let images: Vec<&str> = pictures.iter().map(|picture| text(picture)).collect();
    for (backbone, task) in &tasks {
        let on = ["--backbone", text(backbone), "--task", text(task), "--json"];
        let device = stdout("edge-runtime", &[&["run"], &on[..], &images].concat());
        let host = stdout("tailor", &[&["classify", "--top", "9"], &on[..], &images].concat());
        let (device, host) = (objects(device.as_bytes()), objects(host.as_bytes()));
        assert_eq!((device.len(), host.len()), (7, 7));
        for (device, host) in device.iter().zip(&host) {
            assert_eq!((&host["file"], &host["label"]), (&device["file"], &device["label"]));
            assert_eq!(host["probability"], device["score"], "{}: {host}", task.display());
            let top = host["top"].as_array().unwrap();
            assert_eq!((&top[0]["label"], &top[0]["probability"]), (&host["label"], &host["probability"]));
            let sum: f64 = top.iter().map(|class| class["probability"].as_f64().unwrap()).sum();
            assert!(top.len() == 2 && (sum - 1.0).abs() < 1e-6, "{host}");
        }
    }

    // A JPEG is what its pixels are.
    let (jpeg, same) = (new.join("today/2.jpg"), new.join("today/2.png"));
    image::open(&pictures[4]).unwrap().save(&jpeg).unwrap();
    image::open(&jpeg).unwrap().save(&same).unwrap();
    let on = ["--backbone", text(&tasks[0].0), "--task", text(&tasks[0].1)];
    let classify = |more: &[&str]| run("tailor", &[&["classify"], &on[..], more].concat());
    let both = objects(&classify(&["--json", text(&jpeg), text(&same)]).stdout);
    assert_eq!(both[0]["probability"], both[1]["probability"]);
    assert_eq!(both[0]["top"].as_array().unwrap().len(), 1);

    // A folder, whatever lies in it: one bad image hides none of the others.
    std::fs::write(new.join("bad.png"), b"not a picture").unwrap();
    std::fs::write(new.join("today/film.webp"), b"RIFF").unwrap();
    std::fs::write(new.join("notes.txt"), b"no picture").unwrap();
    let missing = new.join("missing.png");
    let output = classify(&["--json", text(&missing), text(&new)]);
    let told = objects(&output.stdout);
    let files: Vec<&str> = told.iter().map(|line| line["file"].as_str().unwrap()).collect();
    let names = [
        "missing.png",
        "bad.png",
        "today/0.png",
        "today/1.png",
        "today/2.jpg",
        "today/2.png",
        "today/deep.png",
        "today/film.webp",
    ];
    assert_eq!(files, names.map(|name| text(&new.join(name)).to_owned()));
    for (line, name) in told.iter().zip(names) {
        let is_bad = ["missing.png", "bad.png", "today/film.webp"].contains(&name);
        assert_eq!((line["error"].is_string(), line["label"].is_string()), (is_bad, !is_bad), "{line}");
    }
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    for words in
        ["missing.png: cannot be read", "bad.png: cannot be decoded", "film.webp", "first `notes.txt`"]
    {
        assert_eq!(said.matches(words).count(), 1, "{words}: {said}");
    }
    // What cannot be decoded is to be replaced; what is not there cannot be.
    for (name, remedy) in [("missing.png", "; check the path"), ("bad.png", "; replace or remove this file")]
    {
        let line = said.lines().find(|line| line.contains(name)).unwrap();
        assert!(line.contains(remedy), "{line}");
    }

    // In words: a line for each, tabs between.
    let output = classify(&["--top", "2", text(&pictures[0]), text(&new.join("bad.png"))]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = lines.trim_end().split('\t').collect();
    assert_eq!((words.len(), words[0], lines.lines().count()), (5, images[0], 1), "{lines}");
    assert!(words[2].parse::<f32>().unwrap() >= words[4].parse().unwrap(), "{lines}");

    // What belongs to something else is refused before any image is read, with the code of its error.
    let mixed = ["--backbone", text(&tasks[2].0), "--task", text(&tasks[0].1), "nowhere.png"];
    let (code, why) = failure("tailor", &[&["classify"], &mixed[..]].concat());
    assert!(code == 4 && why.contains("halves.task") && !why.contains("nowhere"), "{code}: {why}");
    let empty = new.join("empty");
    std::fs::create_dir(&empty).unwrap();
    let output = classify(&[text(&empty)]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("empty: a folder without images"), "{output:?}");
}
