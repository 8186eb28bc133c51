//! The shaders: files under `shaders/`, embedded, one module per kernel stem.
//!
//! A module is its own file behind the parts of `shaders/common/` that it names. Conventions:
//!
//! - Storage buffers are bindings 0, 1, … of group 0, in the order in which the launch binds them, declared as arrays of
//!   `u32` or `vec4<u32>` words. What a word holds is told by an `override` constant per operand (`x_dtype`, one of the codes
//!   in `common/dtype.wgsl`): one module serves all dtypes, and the driver's compiler folds what does not apply.
//! - Binding 0 of group 1 is `var<uniform> p: Params`. It begins with one `u32` per storage binding, filled up to a
//!   multiple of four: the place of the operand's first element in its binding (which begins at an aligned address before
//!   it). The launch's own parameters follow.
//! - Sizes are parameters, what changes the code is a constant: a pipeline is compiled once for each set of constants.

#[cfg(feature = "wgpu")]
use std::borrow::Cow;

/// A shader module: its name and its parts, by the path below `shaders/`.
#[derive(Debug)]
pub struct Shader {
    /// The stem of its own file.
    pub name: &'static str,
    /// Paths and texts, the module's own file last.
    pub parts: &'static [(&'static str, &'static str)],
    /// What the module needs of the language's extensions.
    pub enables: &'static [&'static str],
}

/// A shader as it was compiled for a kernel.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The kernel that asked first.
    pub kernel: &'static str,
    pub shader: &'static Shader,
    /// The function that runs.
    pub entry: &'static str,
    /// The values of its `override` constants.
    pub constants: Vec<(&'static str, f64)>,
}

/// `shader!("softmax", "dtype", "rows")`: `shaders/softmax.wgsl` behind two files of `shaders/common/`; with
/// `enable "f16"` in front for a module that needs an extension of the language.
macro_rules! shader {
    ($(enable $enable:literal,)* $name:literal $(, $part:literal)* $(,)?) => {{
        static SHADER: $crate::backend::wgpu::shader::Shader = $crate::backend::wgpu::shader::Shader {
            name: $name,
            #[cfg(feature = "wgpu")]
            parts: &[
                $((
                    concat!("common/", $part, ".wgsl"),
                    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/common/", $part, ".wgsl")),
                ),)*
                (
                    concat!($name, ".wgsl"),
                    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $name, ".wgsl")),
                ),
            ],
            #[cfg(not(feature = "wgpu"))]
            parts: &[],
            enables: &[$($enable),*],
        };
        &SHADER
    }};
}
pub(crate) use shader;

/// `rows_shader!(SUBGROUPS, "softmax", "dtype")`: as `shader!`, behind `common/rows_subgroup.wgsl` or `common/rows.wgsl` too.
macro_rules! rows_shader {
    ($subgroups:expr, $($name:literal),+ $(,)?) => {
        match $subgroups {
            true => $crate::backend::wgpu::shader::shader!($($name),+, "rows_subgroup"),
            false => $crate::backend::wgpu::shader::shader!($($name),+, "rows"),
        }
    };
}
pub(crate) use rows_shader;

#[cfg(feature = "wgpu")]
impl Shader {
    /// Tells apart modules of one name with different parts.
    pub(super) fn id(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// The module's text. Where the variable `LAPIDARY_SHADERS` names a folder, files are read from it instead of the
    /// binary: for work on shaders without compiling anything.
    ///
    /// # Errors
    /// A file of that folder cannot be read.
    pub fn source(&self) -> crate::Result<String> {
        let folder = std::env::var_os("LAPIDARY_SHADERS").map(std::path::PathBuf::from);
        let mut text: String = self.enables.iter().map(|e| format!("enable {e};\n")).collect();
        for &(path, embedded) in self.parts {
            let part = match &folder {
                None => Cow::Borrowed(embedded),
                Some(folder) => {
                    let path = folder.join(path);
                    Cow::Owned(std::fs::read_to_string(&path).map_err(|e| crate::Error::io(&path, e))?)
                }
            };
            text.push_str(&part);
            text.push('\n');
        }
        Ok(text)
    }

    /// The file and line that a line of [`source`](Shader::source) stands in: for messages of the compiler.
    pub fn place(&self, line: usize) -> String {
        let mut left = line.saturating_sub(self.enables.len());
        for (path, text) in self.parts {
            let lines = text.lines().count() + 1;
            if left <= lines {
                return format!("shaders/{path}:{left}");
            }
            left -= lines;
        }
        format!("shaders/{}.wgsl", self.name)
    }
}
