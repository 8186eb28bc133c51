//! `compile-kernels NVRTC_LIB_DIR KERNELS_DIR OUT_DIR ARCH [STEM…]`: each `KERNELS_DIR/<stem>.cu` to `OUT_DIR/<stem>.ptx`.
//!
//! Calls NVRTC, which needs no GPU, no driver and no host compiler. The output depends on the sources and NVRTC's version
//! only: sources are handed over as text under names without folders, comments of the compiler are dropped, and the PTX
//! version is lowered so that drivers older than the compiler take the text.

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

type Program = *mut c_void;
type Text = *const c_char;
type Result<T> = std::result::Result<T, String>;

/// The functions of NVRTC that are used, as its header declares them.
struct Nvrtc {
    create: unsafe extern "C" fn(*mut Program, Text, Text, c_int, *const Text, *const Text) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const Text) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ptx_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    ptx: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    /// Keep the code that the pointers above point into.
    _libraries: [Library; 2],
}

impl Nvrtc {
    fn open(folder: &Path) -> Result<Nvrtc> {
        let open = |name: &str| {
            let path = folder.join(name);
            // SAFETY: the two libraries of the pinned wheel; loading them runs their own initialisers only.
            unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) }
                .map_err(|e| format!("{}: {e}", path.display()))
        };
        // First what the second looks up by name.
        let libraries = [open("libnvrtc-builtins.so.13.0")?, open("libnvrtc.so.13")?];
        fn get<T: Copy>(library: &Library, name: &str) -> Result<T> {
            // SAFETY: `T` is the type that nvrtc.h gives the function of this name.
            let symbol: Symbol<T> = unsafe { library.get(name.as_bytes()) }.map_err(|e| format!("{name}: {e}"))?;
            Ok(*symbol)
        }
        let nvrtc = &libraries[1];
        Ok(Nvrtc {
            create: get(nvrtc, "nvrtcCreateProgram")?,
            compile: get(nvrtc, "nvrtcCompileProgram")?,
            log_size: get(nvrtc, "nvrtcGetProgramLogSize")?,
            log: get(nvrtc, "nvrtcGetProgramLog")?,
            ptx_size: get(nvrtc, "nvrtcGetPTXSize")?,
            ptx: get(nvrtc, "nvrtcGetPTX")?,
            destroy: get(nvrtc, "nvrtcDestroyProgram")?,
            _libraries: libraries,
        })
    }

    fn ptx(&self, source: &Path, headers: &[(CString, CString)], arch: &str) -> Result<String> {
        let text = CString::new(read(source)?).map_err(|e| e.to_string())?;
        let name = CString::new(file_name(source)).map_err(|e| e.to_string())?;
        let texts: Vec<Text> = headers.iter().map(|(_, text)| text.as_ptr()).collect();
        let names: Vec<Text> = headers.iter().map(|(name, _)| name.as_ptr()).collect();
        let options = [&format!("--gpu-architecture=compute_{arch}"), "-default-device", "--std=c++17"]
            .map(|o| CString::new(o).expect("no zero byte"));
        let options: Vec<Text> = options.iter().map(|o| o.as_ptr()).collect();
        let mut program: Program = std::ptr::null_mut();
        // SAFETY: every pointer is to a text that ends in a zero byte or to an array of the length beside it, all alive
        // to the end of the function; buffers have the size that NVRTC has just told.
        unsafe {
            let made = (self.create)(
                &mut program,
                text.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                texts.as_ptr(),
                names.as_ptr(),
            );
            if made != 0 {
                return Err(format!("NVRTC makes no program: error {made}"));
            }
            let failed = (self.compile)(program, options.len() as c_int, options.as_ptr());
            let log = buffer(program, self.log_size, self.log);
            let ptx = buffer(program, self.ptx_size, self.ptx);
            (self.destroy)(&mut program);
            match failed {
                0 if log.trim().is_empty() => Ok(ptx),
                _ => Err(log),
            }
        }
    }
}

/// SAFETY: `size` and `fill` are a pair of NVRTC's functions, of which the second writes as many bytes as the first tells.
unsafe fn buffer(
    program: Program,
    size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    fill: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
) -> String {
    let mut bytes = 0;
    unsafe { size(program, &mut bytes) };
    let mut text = vec![0u8; bytes.max(1)];
    unsafe { fill(program, text.as_mut_ptr().cast()) };
    CStr::from_bytes_until_nul(&text).map_or_else(|_| String::new(), |t| t.to_string_lossy().into_owned())
}

/// The text as it is kept: without the compiler's comments and its remarks about bytes of vectors that nobody looks at, and of
/// a version that a driver of CUDA 11.8 knows.
fn tidied(ptx: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in ptx.lines().map(str::trim_end) {
        let line = if line.starts_with(".version") { ".version 7.8" } else { line };
        let twice_empty = line.is_empty() && lines.last().is_none_or(|l| l.is_empty());
        let remark = ["//", ".pragma \"used_bytes_mask"].iter().any(|start| line.trim_start().starts_with(start));
        if !remark && !twice_empty {
            lines.push(line);
        }
    }
    lines.join("\n") + "\n"
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Files of a folder with this extension, in order.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == extension));
    paths.sort();
    Ok(paths)
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [libraries, kernels, out, arch, stems @ ..] = args.as_slice() else {
        return Err("usage: compile-kernels NVRTC_LIB_DIR KERNELS_DIR OUT_DIR ARCH [STEM…]".into());
    };
    let (kernels, out) = (Path::new(kernels), Path::new(out));
    let nvrtc = Nvrtc::open(Path::new(libraries))?;
    let mut headers = Vec::new();
    for path in files(&kernels.join("common"), "cuh")? {
        let text = CString::new(read(&path)?).map_err(|e| e.to_string())?;
        headers.push((CString::new(format!("common/{}", file_name(&path))).map_err(|e| e.to_string())?, text));
    }
    let mut sources = files(kernels, "cu")?;
    sources.retain(|p| stems.is_empty() || stems.iter().any(|s| p.file_stem().is_some_and(|f| f == s.as_str())));
    if sources.is_empty() {
        return Err(format!("no such .cu file in {}", kernels.display()));
    }
    fs::create_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;

    // Files are compiled side by side; messages come one file at a time.
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(0usize);
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let to = out.join(source.with_extension("ptx").file_name().unwrap_or_default());
                    let written = nvrtc
                        .ptx(source, &headers, arch)
                        .and_then(|ptx| fs::write(&to, tidied(&ptx)).map_err(|e| format!("{}: {e}", to.display())));
                    if let Err(why) = written {
                        *failures.lock().unwrap_or_else(|e| e.into_inner()) += 1;
                        eprintln!("{}:\n{why}", source.display());
                    }
                }
            });
        }
    });
    match failures.into_inner().unwrap_or_else(|e| e.into_inner()) {
        0 => Ok(()),
        n => Err(format!("{n} of {} files do not compile, or not without warnings", sources.len())),
    }
}

fn main() {
    if let Err(why) = run() {
        eprintln!("{why}");
        std::process::exit(1);
    }
}
