//! Values computed outside candle, inserted into its graph as custom ops with a closure for the backward
//! pass.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::backprop::GradStore;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Storage, StorageRef, Tensor,
    TensorId, bail,
};
use std::cell::RefCell;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

/// Read access to the floats of a contiguous CPU tensor.
pub(crate) struct Floats<'a> {
    storage: StorageRef<'a>,
    range: std::ops::Range<usize>,
}

/// Locks `t`, which must be contiguous `f32` on the CPU, for reading.
pub(crate) fn floats(t: &Tensor) -> Result<Floats<'_>> {
    let (storage, layout) = t.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("a kernel got a strided tensor of shape {:?}: call contiguous() first", t.shape())
    };
    match &*storage {
        Storage::Cpu(CpuStorage::F32(_)) => {}
        _ => bail!("kernels work on f32 tensors on the CPU, found {:?} on {:?}", t.dtype(), t.device()),
    }
    Ok(Floats { storage, range: start..end })
}

impl Deref for Floats<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            // `floats` refused everything else, and the lock has been held since.
            _ => &[],
        }
    }
}

/// A tensor of `values` without history.
pub(crate) fn plain(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}

/// Whether a gradient of `t` is needed.
pub(crate) fn wanted(t: &Tensor) -> bool {
    t.track_op()
}

thread_local! {
    /// Gradients of trained tensors found so far, while [`backward`] runs.
    static FOUND: RefCell<Option<GradStore>> = const { RefCell::new(None) };
}

/// Restores what was being collected before, even on errors: a thread that waits for part of a kernel may run
/// a step of another training in the meantime.
struct Collecting {
    before: Option<GradStore>,
}

impl Drop for Collecting {
    fn drop(&mut self) {
        FOUND.set(self.before.take());
    }
}

/// Gradients of the scalar `loss` with respect to every trained tensor it depends on.
///
/// For a loss made of candle's operations, the result is that of candle's own `backward`. The operations of
/// this module keep gradients of trained tensors to themselves until the end: candle would first add each to
/// a tensor of zeros, and there are more such gradients than feature maps.
///
/// # Errors
/// Any error of the operations.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    let _collecting = Collecting { before: FOUND.replace(Some(GradStore::default())) };
    let mut gradients = loss.backward()?;
    let Some(found) = FOUND.take() else {
        bail!("backward: the gradients of trained tensors have been lost")
    };
    gradients.extend(found)?;
    Ok(gradients)
}

/// Adds to the gradient of a trained tensor.
fn found(name: &str, variable: TensorId, gradient: Tensor) -> Result<()> {
    FOUND.with_borrow_mut(|found| {
        let Some(found) = found else { bail!("{name}: use ops::backward to compute gradients") };
        let sum = match found.get_id(variable) {
            Some(before) => (before + gradient)?,
            None => gradient,
        };
        found.insert_id(variable, sum);
        Ok(())
    })
}

/// A computed value, on the device of the node's arguments.
pub(crate) enum Value {
    /// In memory.
    Cpu(Vec<f32>),
    /// On an NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda(CudaStorage),
}

impl Value {
    /// A scalar zero on the device of `t`.
    fn zero(t: &Tensor) -> Result<Value> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = t.device() {
            return Ok(super::gpu::zero(device)?.into());
        }
        match t.device() {
            Device::Cpu => Ok(vec![0.].into()),
            device => bail!("no kernels for {device:?}"),
        }
    }
}

impl From<Vec<f32>> for Value {
    fn from(values: Vec<f32>) -> Value {
        Value::Cpu(values)
    }
}

struct Node<B> {
    name: &'static str,
    value: Mutex<Option<Value>>,
    shape: Shape,
    backward: B,
}

impl<B> Node<B> {
    fn take(&self) -> Result<(Value, Shape)> {
        let value = self.value.lock().ok().and_then(|mut value| value.take());
        match value {
            Some(value) => Ok((value, self.shape.clone())),
            None => bail!("{}: the value of a node was requested twice", self.name),
        }
    }

    fn take_cpu(&self) -> Result<(CpuStorage, Shape)> {
        match self.take()? {
            (Value::Cpu(values), shape) => Ok((CpuStorage::F32(values), shape)),
            #[cfg(feature = "cuda")]
            _ => bail!("{}: value on the GPU for arguments in memory", self.name),
        }
    }

    #[cfg(feature = "cuda")]
    fn take_cuda(&self) -> Result<(CudaStorage, Shape)> {
        match self.take()? {
            (Value::Cuda(storage), shape) => Ok((storage, shape)),
            _ => bail!("{}: value in memory for arguments on the GPU", self.name),
        }
    }
}

impl<B: Fn(&Tensor, &Tensor) -> Result<Gradients>> Node<B> {
    /// Gradients of the node's arguments, in the form that candle expects.
    fn gradients<const N: usize>(&self, y: &Tensor, g: &Tensor) -> Result<[Option<Tensor>; N]> {
        let mut all = (self.backward)(y, &g.contiguous()?)?.into_iter();
        Ok(std::array::from_fn(|_| all.next().flatten()))
    }
}

impl<B: Fn(&Tensor, &Tensor) -> Result<Gradients>> CustomOp1 for Node<B> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take_cpu()
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.take_cuda()
    }
    fn bwd(&self, _: &Tensor, y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        self.gradients(y, g).map(|[a]| a)
    }
}

impl<B: Fn(&Tensor, &Tensor) -> Result<Gradients>> CustomOp2 for Node<B> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take_cpu()
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.take_cuda()
    }
    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients(y, g).map(|[a, b]| (a, b))
    }
}

impl<B: Fn(&Tensor, &Tensor) -> Result<Gradients>> CustomOp3 for Node<B> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.take_cpu()
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.take_cuda()
    }
    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        self.gradients(y, g).map(|[a, b, c]| (a, b, c))
    }
}

/// One gradient per argument.
pub(crate) type Gradients = Vec<Option<Tensor>>;

/// A node of candle's graph with up to three arguments.
fn custom<B>(
    name: &'static str,
    arguments: &[&Tensor],
    value: Value,
    shape: Shape,
    backward: B,
) -> Result<Tensor>
where
    B: Fn(&Tensor, &Tensor) -> Result<Gradients> + Send + Sync + 'static,
{
    let node = Node { name, value: Mutex::new(Some(value)), shape, backward };
    match arguments {
        [a] => a.apply_op1(node),
        [a, b] => a.apply_op2(b, node),
        [a, b, c] => a.apply_op3(b, c, node),
        _ => bail!("{name}: a custom op of {} tensors", arguments.len()),
    }
}

/// Creates a node for `value` as a function of any number of tensors; `backward(value, gradient)` returns
/// their gradients in order, one for each that is [`wanted`]. [`backward`] collects those of trained tensors.
///
/// A custom op takes at most three tensors. Any others are attached to carriers, scalars chained one to the
/// next and finally to the node: candle visits them after the node, and finds the gradients it left there
/// (for one [`backward`] at a time over one graph).
pub(crate) fn node<B>(
    name: &'static str,
    arguments: &[&Tensor],
    value: impl Into<Value>,
    shape: impl Into<Shape>,
    backward: B,
) -> Result<Tensor>
where
    B: Fn(&Tensor, &Tensor) -> Result<Gradients> + Send + Sync + 'static,
{
    let Some(first) = arguments.first() else { bail!("{name}: a node without arguments") };
    let is_inner = |t: &Tensor| wanted(t) && !t.is_variable();
    let inner: Vec<usize> = (0..arguments.len()).filter(|&i| is_inner(arguments[i])).collect();
    let variables: Vec<(usize, TensorId)> =
        arguments.iter().enumerate().filter(|(_, t)| t.is_variable()).map(|(i, t)| (i, t.id())).collect();
    let mut outer: Vec<&Tensor> = inner.iter().map(|&i| arguments[i]).collect();
    // Candle visits this node only if an argument depends on something trained; that gradient is not returned
    // here.
    outer.extend(variables.first().map(|&(i, _)| arguments[i]));
    if outer.is_empty() {
        outer.push(first);
    }
    let count = outer.len();
    let gradients = move |y: &Tensor, g: &Tensor| -> Result<Gradients> {
        let mut all = backward(y, g)?;
        let mut take = |i: usize| match all.get_mut(i).and_then(Option::take) {
            Some(gradient) => Ok(gradient),
            None => bail!("{name}: no gradient of argument {i}"),
        };
        for &(i, id) in &variables {
            found(name, id, take(i)?)?;
        }
        let mut told: Gradients = inner.iter().map(|&i| take(i).map(Some)).collect::<Result<_>>()?;
        told.resize(count, None);
        Ok(told)
    };
    let (value, shape) = (value.into(), shape.into());
    if outer.len() <= 3 {
        return custom(name, &outer, value, shape, gradients);
    }
    let left: Arc<Mutex<Gradients>> = Arc::default();
    let take = |from: usize, count: usize| {
        let left = Arc::clone(&left);
        move || -> Gradients {
            let mut left = left.lock().ok();
            let mut take = |i: usize| left.as_mut().and_then(|left| left.get_mut(i)?.take());
            (from..from + count).map(&mut take).collect()
        }
    };
    let zero = || Value::zero(outer[0]);
    let taken = take(0, 3);
    let mut carrier = custom(name, &outer[..3], zero()?, Shape::from(()), move |_, _| Ok(taken()))?;
    let mut at = 3;
    while outer.len() - at > 2 {
        let taken = take(at, 2);
        let hung = [&carrier, outer[at], outer[at + 1]];
        carrier = custom(name, &hung, zero()?, Shape::from(()), move |_, g| {
            Ok([vec![Some(g.clone())], taken()].concat())
        })?;
        at += 2;
    }
    let of_carrier = carrier.detach();
    let mut hung = vec![&carrier];
    hung.extend(&outer[at..]);
    custom(name, &hung, value, shape, move |y, g| {
        let mut all = gradients(y, g)?;
        let own = all.split_off(at);
        if let Ok(mut left) = left.lock() {
            *left = all;
        }
        Ok([vec![Some(of_carrier.clone())], own].concat())
    })
}
