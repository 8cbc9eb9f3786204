//! Devices: names, and what is said about them.

use super::*;

#[test]
fn devices_are_named_like_the_field_names_them() {
    for (text, expected) in
        [("cpu", DeviceSpec::Cpu), ("cuda", DeviceSpec::Cuda(0)), ("cuda:1", DeviceSpec::Cuda(1))]
    {
        assert_eq!(parse_device(text).unwrap(), expected);
    }
    for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "cuda:0:1"] {
        assert!(parse_device(text).is_err(), "{text}");
    }
    assert_eq!(DeviceSpec::Cuda(1).to_string(), "cuda:1");
    assert_eq!(DeviceSpec::Cpu.built().unwrap(), DeviceSpec::Cpu);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_cpu_build_says_how_to_get_the_other() {
    let error = DeviceSpec::Cuda(0).built().unwrap_err().to_string();
    assert!(error.contains("--features cuda"), "{error}");
}

#[test]
fn this_machine_has_a_processor() {
    let cpu = find_cpu();
    assert!(!cpu.name.is_empty());
    assert!(cpu.cores >= 1);
    assert!(cpu.memory_bytes > 1 << 26, "{} bytes", cpu.memory_bytes);
}

#[test]
fn driver_versions_are_read() {
    let text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Sat Feb 24 22:54:10 UTC 2024\n\
                    GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n";
    assert_eq!(driver_version(text).as_deref(), Some("535.161.08"));
    assert_eq!(driver_version("something else"), None);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn cards_are_read() {
    let card = card_of_line("0, 81559, 9.0, NVIDIA H100 80GB HBM3").unwrap();
    assert_eq!(card.name, "NVIDIA H100 80GB HBM3");
    assert_eq!((card.index, card.memory_bytes), (0, 81559 << 20));
    assert_eq!(card_of_line("No devices were found"), None);
}

#[test]
fn a_card_out_of_reach_is_listed_with_a_hint() {
    let devices = Devices {
        cpu: Cpu {
            name: "Some CPU".to_string(),
            cores: 2,
            memory_bytes: 8 << 30,
            instruction_sets: vec!["AVX-512", "AVX2"],
        },
        cuda: Cuda {
            built: false,
            driver: Some("535.161.08".to_string()),
            devices: vec![Card {
                index: 0,
                name: "Some Card".to_string(),
                memory_bytes: 80 << 30,
                compute_capability: "9.0".to_string(),
            }],
            hint: Some("do this".to_string()),
        },
    };
    assert_eq!(
        describe(&devices),
        "cpu     Some CPU, 2 cores, 8.00 GiB, AVX-512 AVX2\n\
             cuda:0  Some Card, 80.00 GiB, compute capability 9.0\n\
             CUDA driver: 535.161.08; this pagebert computes on the CPU alone\n\
             Hint: do this\n"
    );
}
