//! Values computed outside candle, put into its graph as custom ops with a closure for the backward pass.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Storage, StorageRef, Tensor,
    bail,
};
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
            // `floats` refused everything else and the lock is held since.
            _ => &[],
        }
    }
}

/// A plain tensor around `values`.
pub(crate) fn plain(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}

/// Whether a gradient of `t` can be of use to anyone.
pub(crate) fn wanted(t: &Tensor) -> bool {
    t.track_op()
}

/// What was computed, on the device of the node's arguments.
pub(crate) enum Value {
    /// In memory.
    Cpu(Vec<f32>),
    /// On an NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda(CudaStorage),
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
    fn new(name: &'static str, value: impl Into<Value>, shape: Shape, backward: B) -> Node<B> {
        Node { name, value: Mutex::new(Some(value.into())), shape, backward }
    }

    fn take(&self) -> Result<(Value, Shape)> {
        let value = self.value.lock().ok().and_then(|mut value| value.take());
        match value {
            Some(value) => Ok((value, self.shape.clone())),
            None => bail!("{}: the value of a node was asked for twice", self.name),
        }
    }

    fn take_cpu(&self) -> Result<(CpuStorage, Shape)> {
        match self.take()? {
            (Value::Cpu(values), shape) => Ok((CpuStorage::F32(values), shape)),
            #[cfg(feature = "cuda")]
            _ => bail!("{}: computed on a GPU, for arguments in memory", self.name),
        }
    }

    #[cfg(feature = "cuda")]
    fn take_cuda(&self) -> Result<(CudaStorage, Shape)> {
        match self.take()? {
            (Value::Cuda(storage), shape) => Ok((storage, shape)),
            _ => bail!("{}: computed in memory, for arguments on a GPU", self.name),
        }
    }
}

impl<B: Fn(&Tensor, &Tensor) -> Result<Option<Tensor>>> CustomOp1 for Node<B> {
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
        (self.backward)(y, &g.contiguous()?)
    }
}

/// Gradients of two arguments.
pub(crate) type Two = (Option<Tensor>, Option<Tensor>);
/// Gradients of three arguments.
pub(crate) type Three = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

impl<B: Fn(&Tensor, &Tensor) -> Result<Two>> CustomOp2 for Node<B> {
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
    fn bwd(&self, _: &Tensor, _: &Tensor, y: &Tensor, g: &Tensor) -> Result<Two> {
        (self.backward)(y, &g.contiguous()?)
    }
}

impl<B: Fn(&Tensor, &Tensor) -> Result<Three>> CustomOp3 for Node<B> {
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
    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, y: &Tensor, g: &Tensor) -> Result<Three> {
        (self.backward)(y, &g.contiguous()?)
    }
}

/// `value` as a function of `a`; `backward(value, gradient)` gives the gradient of `a`.
pub(crate) fn node1<B>(
    name: &'static str,
    a: &Tensor,
    value: impl Into<Value>,
    shape: Shape,
    backward: B,
) -> Result<Tensor>
where
    B: Fn(&Tensor, &Tensor) -> Result<Option<Tensor>> + Send + Sync + 'static,
{
    a.apply_op1(Node::new(name, value, shape, backward))
}

/// `value` as a function of `a` and `b`.
pub(crate) fn node2<B>(
    name: &'static str,
    (a, b): (&Tensor, &Tensor),
    value: impl Into<Value>,
    shape: Shape,
    backward: B,
) -> Result<Tensor>
where
    B: Fn(&Tensor, &Tensor) -> Result<Two> + Send + Sync + 'static,
{
    a.apply_op2(b, Node::new(name, value, shape, backward))
}

/// `value` as a function of `a`, `b` and `c`.
pub(crate) fn node3<B>(
    name: &'static str,
    (a, b, c): (&Tensor, &Tensor, &Tensor),
    value: impl Into<Value>,
    shape: Shape,
    backward: B,
) -> Result<Tensor>
where
    B: Fn(&Tensor, &Tensor) -> Result<Three> + Send + Sync + 'static,
{
    a.apply_op3(b, c, Node::new(name, value, shape, backward))
}

/// `value` as a function of any number of tensors; `backward(value, gradient)` gives their gradients in the same order,
/// and one for each that is [`wanted`].
///
/// A custom op takes three tensors. The others hang on carriers, scalars that lead from one to the next and at last to the
/// node: candle comes to them after the node, and finds the gradients that it left.
pub(crate) fn node_of<B>(
    name: &'static str,
    arguments: &[&Tensor],
    value: impl Into<Value>,
    shape: Shape,
    backward: B,
) -> Result<Tensor>
where
    B: Fn(&Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
{
    let Some((last, others)) = arguments.split_last() else { bail!("{name}: a node of nothing") };
    let left: Arc<Mutex<Vec<Option<Tensor>>>> = Arc::default();
    let mut carrier: Option<Tensor> = None;
    for (i, argument) in others.iter().enumerate().filter(|(_, argument)| wanted(argument)) {
        let left = Arc::clone(&left);
        let take = move || left.lock().ok().and_then(|mut left| left.get_mut(i)?.take());
        carrier = Some(match &carrier {
            None => node1(name, argument, vec![0.], Shape::from(()), move |_, _| Ok(take()))?,
            Some(before) => node2(name, (before, argument), vec![0.], Shape::from(()), move |_, g| {
                Ok((Some(g.clone()), take()))
            })?,
        });
    }
    let gradients = move |y: &Tensor, g: &Tensor| -> Result<Option<Tensor>> {
        let mut all = backward(y, g)?;
        let last = all.pop().flatten();
        if let Ok(mut left) = left.lock() {
            *left = all;
        }
        Ok(last)
    };
    match carrier {
        None => node1(name, last, value, shape, gradients),
        Some(carrier) => node2(name, (&carrier, last), value, shape, move |y, g| {
            let last = gradients(y, g)?;
            Ok((Some(Tensor::zeros((), g.dtype(), g.device())?), last))
        }),
    }
}
