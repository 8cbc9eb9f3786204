//! What there is to compute on: `--device` values, and `pagebert devices`.
//!
//! Owns the search for processors and graphics cards, and the words about them. Must not know how
//! anything is computed: the self-test is the trainer's.

use std::io::Write;
use std::path::Path;
#[cfg(not(feature = "cuda"))]
use std::process::Command;
use std::str::FromStr;

use serde::Serialize;

use crate::UsageError;
use crate::cli::DevicesArgs;
use crate::progress::{Console, human_bytes};

/// How to get a build that computes on graphics cards.
const CUDA_BUILD: &str = "build pagebert with CUDA: cargo install --path trainer --features cuda \
                          (needs the CUDA toolkit)";

/// A device as `--device` names it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceSpec {
    /// The processor.
    #[default]
    Cpu,
    /// A CUDA card by its number.
    Cuda(usize),
}

impl std::fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DeviceSpec::Cpu => f.write_str("cpu"),
            DeviceSpec::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl DeviceSpec {
    /// Refuses a device that this build can't reach.
    pub fn built(self) -> Result<DeviceSpec, UsageError> {
        match self {
            DeviceSpec::Cuda(_) if !cfg!(feature = "cuda") => Err(UsageError(format!(
                "--device {self}: this pagebert was built for the CPU alone; {CUDA_BUILD}"
            ))),
            other => Ok(other),
        }
    }
}

/// Reads `cpu`, `cuda` or `cuda:1`.
pub fn parse_device(text: &str) -> Result<DeviceSpec, UsageError> {
    let device = match text.split_once(':') {
        None if text == "cpu" => Some(DeviceSpec::Cpu),
        None if text == "cuda" => Some(DeviceSpec::Cuda(0)),
        Some(("cuda", index)) => usize::from_str(index).ok().map(DeviceSpec::Cuda),
        _ => None,
    };
    device.ok_or_else(|| {
        UsageError("expected cpu, cuda or cuda:N with the number of the card, from 0".to_string())
    })
}

/// Everything there is.
#[derive(Debug, Serialize)]
pub struct Devices {
    /// The processor.
    pub cpu: Cpu,
    /// What is known of CUDA.
    pub cuda: Cuda,
}

/// The processor.
#[derive(Debug, Serialize)]
pub struct Cpu {
    /// As its maker calls it.
    pub name: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Main memory that this process may use.
    pub memory_bytes: u64,
    /// The instruction sets that matter here, best first.
    pub instruction_sets: Vec<&'static str>,
}

/// What is known of CUDA.
#[derive(Debug, Serialize)]
pub struct Cuda {
    /// Whether this build can compute with CUDA.
    pub built: bool,
    /// The driver's version, or where it was found.
    pub driver: Option<String>,
    /// The cards.
    pub devices: Vec<Card>,
    /// What to do next, if anything.
    pub hint: Option<String>,
}

/// A CUDA card.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Card {
    /// Its number in `--device cuda:N`.
    pub index: usize,
    /// As its maker calls it.
    pub name: String,
    /// Its own memory.
    pub memory_bytes: u64,
    /// Such as `9.0`.
    pub compute_capability: String,
}

/// `pagebert devices` without `--selftest`: prints what there is.
pub fn run(args: &DevicesArgs, _console: &Console) -> anyhow::Result<()> {
    let devices = find();
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &devices)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", describe(&devices))?;
    }
    Ok(())
}

/// Looks for everything there is.
pub fn find() -> Devices {
    Devices { cpu: find_cpu(), cuda: find_cuda() }
}

fn find_cpu() -> Cpu {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    let name = system.cpus().first().map(|cpu| cpu.brand().trim()).unwrap_or_default();
    let name = if name.is_empty() { std::env::consts::ARCH } else { name };
    // In a container the group's limit is what counts.
    let group = system.cgroup_limits().map(|limits| limits.total_memory).filter(|&limit| limit > 0);
    let total = system.total_memory();
    Cpu {
        name: name.to_string(),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        memory_bytes: group.map_or(total, |limit| limit.min(total)),
        instruction_sets: instruction_sets(),
    }
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> Vec<&'static str> {
    // The standard library can't ask for AMX on stable yet; Linux lists it when it also supports it.
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |name| flags.split_ascii_whitespace().any(|flag| flag == name);
    let amx = has("amx_tile") && has("amx_bf16") && has("amx_int8");
    [
        ("AMX", amx),
        ("AVX-512-BF16", is_x86_feature_detected!("avx512bf16")),
        ("AVX-512-VNNI", is_x86_feature_detected!("avx512vnni")),
        ("AVX-512", is_x86_feature_detected!("avx512f")),
        ("AVX2", is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect()
}

#[cfg(target_arch = "aarch64")]
fn instruction_sets() -> Vec<&'static str> {
    [
        ("BF16", std::arch::is_aarch64_feature_detected!("bf16")),
        ("DotProd", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("NEON", std::arch::is_aarch64_feature_detected!("neon")),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instruction_sets() -> Vec<&'static str> {
    Vec::new()
}

/// Whether a card multiplies bf16 itself: those of compute capability 8.0 and later do.
pub fn has_bf16(index: usize) -> bool {
    let card = find_cuda().devices.into_iter().find(|card| card.index == index);
    let major = card.and_then(|card| card.compute_capability.split('.').next()?.parse().ok());
    major.is_some_and(|major: u32| major >= 8)
}

#[cfg(feature = "cuda")]
fn find_cuda() -> Cuda {
    let driver = find_driver();
    match cuda_cards() {
        Ok(devices) => {
            let hint = devices.is_empty().then(|| "the driver found no card".to_string());
            Cuda { built: true, driver, devices, hint }
        }
        Err(error) => {
            let hint = Some(format!("the CUDA driver does not answer: {error}"));
            Cuda { built: true, driver, devices: Vec::new(), hint }
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda_cards() -> Result<Vec<Card>, cudarc::driver::DriverError> {
    use cudarc::driver::CudaContext;

    (0..CudaContext::device_count()?)
        .map(|ordinal| {
            let index = ordinal as usize;
            let context = CudaContext::new(index)?;
            let (major, minor) = context.compute_capability()?;
            Ok(Card {
                index,
                name: context.name()?,
                memory_bytes: context.total_mem()? as u64,
                compute_capability: format!("{major}.{minor}"),
            })
        })
        .collect()
}

/// A CPU build has no CUDA to ask, so it looks at what the driver leaves around.
#[cfg(not(feature = "cuda"))]
fn find_cuda() -> Cuda {
    let driver = find_driver();
    let devices = nvidia_smi();
    let hint = (driver.is_some() || !devices.is_empty())
        .then(|| format!("to compute on a card, {CUDA_BUILD}"));
    Cuda { built: false, driver, devices, hint }
}

/// The driver's version, or the path of its library.
fn find_driver() -> Option<String> {
    if let Ok(text) = std::fs::read_to_string("/proc/driver/nvidia/version") {
        return Some(driver_version(&text).unwrap_or_else(|| "unknown version".to_string()));
    }
    // The driver may show no /proc entry: in WSL it is Windows's, in containers it is mounted.
    let libraries = [
        "/usr/lib/wsl/lib/libcuda.so.1",
        "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
        "/usr/lib/aarch64-linux-gnu/libcuda.so.1",
        "/usr/lib64/libcuda.so.1",
        "/usr/local/nvidia/lib64/libcuda.so.1",
        r"C:\Windows\System32\nvcuda.dll",
    ];
    libraries.into_iter().find(|library| Path::new(library).exists()).map(str::to_string)
}

/// The version in `/proc/driver/nvidia/version`: the first word of digits and dots on its NVRM line.
fn driver_version(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    line.split_ascii_whitespace()
        .find(|word| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.'))
        .map(str::to_string)
}

#[cfg(not(feature = "cuda"))]
fn nvidia_smi() -> Vec<Card> {
    let output = Command::new("nvidia-smi")
        .args(["--query-gpu=index,memory.total,compute_cap,name", "--format=csv,noheader,nounits"])
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).lines().filter_map(card_of_line).collect()
        }
        _ => Vec::new(),
    }
}

/// A line such as `0, 81559, 9.0, NVIDIA H100 80GB HBM3`, memory in MiB.
#[cfg(not(feature = "cuda"))]
fn card_of_line(line: &str) -> Option<Card> {
    let mut fields = line.splitn(4, ',').map(str::trim);
    let index = fields.next()?.parse().ok()?;
    let memory_mib: u64 = fields.next()?.parse().ok()?;
    let compute_capability = fields.next()?.to_string();
    let name = fields.next()?.to_string();
    Some(Card { index, name, memory_bytes: memory_mib << 20, compute_capability })
}

/// What there is, in lines for people.
fn describe(devices: &Devices) -> String {
    let Devices { cpu, cuda } = devices;
    let mut text = format!(
        "cpu     {}, {} {}, {}, {}\n",
        cpu.name,
        cpu.cores,
        if cpu.cores == 1 { "core" } else { "cores" },
        human_bytes(cpu.memory_bytes),
        if cpu.instruction_sets.is_empty() {
            "no vector instructions that pagebert knows".to_string()
        } else {
            cpu.instruction_sets.join(" ")
        },
    );
    for card in &cuda.devices {
        text += &format!(
            "cuda:{}  {}, {}, compute capability {}\n",
            card.index,
            card.name,
            human_bytes(card.memory_bytes),
            card.compute_capability
        );
    }
    match (&cuda.driver, cuda.built) {
        (Some(driver), true) => text += &format!("CUDA driver: {driver}\n"),
        (Some(driver), false) => {
            text += &format!("CUDA driver: {driver}; this pagebert computes on the CPU alone\n");
        }
        (None, _) if cuda.devices.is_empty() => text += "No CUDA driver found.\n",
        (None, _) => {}
    }
    if let Some(hint) = &cuda.hint {
        text += &format!("Hint: {hint}\n");
    }
    text
}

#[cfg(test)]
mod tests;
