//! The C ABI, called as from C.
#![allow(unsafe_code)]

use super::store;
use edge_runtime::ffi::{
    EdgeResult, INPUT, NOT_RESIDENT, edge_runtime_close, edge_runtime_frame, edge_runtime_last_error,
    edge_runtime_load, edge_runtime_open, edge_runtime_switch,
};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};

fn last_error() -> String {
    // SAFETY: the pointer is valid until this thread's next call, and is copied here.
    unsafe { CStr::from_ptr(edge_runtime_last_error()) }.to_str().unwrap().to_owned()
}

fn path(directory: &tempfile::TempDir, name: &str) -> CString {
    CString::new(directory.path().join(name).to_str().unwrap()).unwrap()
}

#[test]
fn c_opens_loads_switches_and_classifies() {
    let directory = store::directory(&store::packed("cifar-resnet20-a", 8, 31));
    let pixels = [90u8; 5 * 4 * 3];
    let mut result = MaybeUninit::<EdgeResult>::uninit();
    // SAFETY: every pointer is NULL or valid, sizes are correct, and one thread uses the runtime until it is
    // closed.
    unsafe {
        let runtime = edge_runtime_open(path(&directory, "net.backbone").as_ptr(), 2);
        assert!(!runtime.is_null(), "{}", last_error());
        assert_eq!(edge_runtime_switch(runtime, 0), NOT_RESIDENT);
        let first = edge_runtime_load(runtime, path(&directory, "digits.task").as_ptr());
        let second = edge_runtime_load(runtime, path(&directory, "signs.task").as_ptr());
        assert_eq!((first, second), (0, 1));
        assert_eq!(edge_runtime_load(runtime, path(&directory, "digits.task").as_ptr()), 0);

        for (task, name, classes) in [(second, "signs", 6), (first, "digits", 4)] {
            assert_eq!(edge_runtime_switch(runtime, task), 0);
            assert_eq!(edge_runtime_frame(runtime, pixels.as_ptr(), 5, 4, 3, result.as_mut_ptr()), 0);
            let result = result.assume_init_ref();
            let label = CStr::from_bytes_until_nul(&result.label).unwrap().to_str().unwrap();
            assert_eq!(label, format!("{name} {}", result.class));
            assert_eq!(result.classes, classes);
            let logits = std::slice::from_raw_parts(result.logits, classes);
            assert!(logits.iter().all(|logit| *logit <= logits[result.class as usize]));
        }

        assert_eq!(edge_runtime_load(runtime, path(&directory, "net.backbone").as_ptr()), -2);
        assert!(last_error().contains("is a backbone"), "{}", last_error());
        assert_eq!(
            edge_runtime_frame(runtime, pixels.as_ptr(), usize::MAX, 4, 3, result.as_mut_ptr()),
            INPUT
        );
        assert_eq!(edge_runtime_frame(runtime, null(), 5, 4, 3, result.as_mut_ptr()), -2);
        assert_eq!(edge_runtime_frame(runtime, pixels.as_ptr(), 5, 4, 3, null_mut()), -2);
        assert_eq!(edge_runtime_frame(runtime, pixels.as_ptr(), 5, 4, 3, result.as_mut_ptr()), 0);
        edge_runtime_close(runtime);

        assert!(edge_runtime_open(c"/nowhere".as_ptr(), 1).is_null());
        assert!(last_error().contains("/nowhere"));
        assert!(edge_runtime_open(null(), 1).is_null());
        assert_eq!(edge_runtime_load(null_mut(), null()), -2);
        edge_runtime_close(null_mut());
    }
}
