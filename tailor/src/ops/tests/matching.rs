//! Local matching from traces gives the same gradients as computing the cell again.

use super::{Rng, close_tensors};
use crate::ops::{self, ProxyTrace, stock};
use candle_core::{Tensor, Var};

fn proxy(rng: &mut Rng, n: usize, c_in: usize, c: usize, size: usize, gate: usize) -> (ProxyTrace, Vec<Var>) {
    let vars = vec![rng.var(&[c, c_in, 1, 1]), rng.var(&[c]), rng.var(&[c])];
    let pooled = rng.var(&[n, c_in, size, size]).as_detached_tensor();
    let conv_out = ops::conv2d(&pooled, &vars[0], 1, 0, false).unwrap();
    let out = ops::batch_norm(&conv_out, &vars[1], &vars[2], 1e-5, false, false).unwrap();
    let trace = ProxyTrace {
        pooled,
        conv_out,
        weight: vars[0].as_tensor().clone(),
        norm_weight: vars[1].as_tensor().clone(),
        norm_bias: vars[2].as_tensor().clone(),
        mean: out.mean,
        var: out.var,
        eps: 1e-5,
        gate,
    };
    (trace, vars)
}

#[test]
fn traces_give_the_gradients_of_a_second_pass() {
    let mut rng = Rng::new(20);
    let (n, c, size) = (3, 6, 5);
    for (count, relu) in [(0, true), (1, true), (3, true), (3, false)] {
        let (traces, mut vars): (Vec<_>, Vec<_>) =
            (0..count).map(|i| proxy(&mut rng, n, 4 + i, c, size, i + 1)).unzip();
        let logits = rng.var(&[4]);
        let alpha = candle_nn::ops::softmax(&logits, 0).unwrap();
        let block: Vec<Tensor> = (0..2).map(|_| rng.var(&[n, c, size, size]).as_detached_tensor()).collect();
        let mut terms = block.clone();
        let mut gates = vec![Some(0); 2];
        for t in &traces {
            terms.push(
                ops::batch_norm(&t.conv_out, &t.norm_weight, &t.norm_bias, t.eps, false, false).unwrap().y,
            );
            gates.push(Some(t.gate));
        }
        let y = ops::gated_sum(&terms, &gates, Some(&alpha), relu).unwrap();
        let target = rng.var(&[n, c, size, size]).as_detached_tensor();
        let fast = ops::local_match(&y, &target, relu, &block, 0, &traces, &alpha).unwrap();
        let slow = stock::local_match(&target, relu, &block, 0, &traces, &alpha).unwrap();
        close_tensors("loss", &fast, &slow, 1e-5);
        let [a, b] = [fast, slow].map(|loss| ops::backward(&(loss * 0.7).unwrap()).unwrap());
        vars.push(vec![logits]);
        for (i, var) in vars.iter().flatten().enumerate() {
            let (a, b) = (a.get(var).expect("fast gradient"), b.get(var).expect("slow gradient"));
            close_tensors(&format!("{count} proxies, relu {relu}, gradient {i}"), a, b, 1e-4);
        }
    }
}

#[test]
fn a_proxy_that_leads_elsewhere_is_refused() {
    let mut rng = Rng::new(21);
    let (trace, _) = proxy(&mut rng, 2, 3, 4, 5, 7);
    let y = rng.var(&[2, 4, 5, 5]).as_detached_tensor();
    let alpha = rng.var(&[2]).as_detached_tensor();
    let error = ops::local_match(&y, &y, true, &[], 0, &[trace], &alpha).unwrap_err().to_string();
    assert!(error.contains("gate 7 of 2"), "{error}");
}
