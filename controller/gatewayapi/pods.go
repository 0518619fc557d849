package gatewayapi

import (
	"net/netip"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/gateway/config"
)

// podIndex is the Pods by namespace, sorted by name, for XBackends that select them.
type podIndex struct {
	// version counts the renewals, so that whoever read the index sees that it changed.
	version     uint64
	byNamespace map[string][]*corev1.Pod
}

// renew reads the Pods again.
func (x *podIndex) renew(st *source.State) {
	x.version++
	x.byNamespace = make(map[string][]*corev1.Pod)
	for _, key := range sortedKeys(st.Pods) {
		x.byNamespace[key.Namespace] = append(x.byNamespace[key.Namespace], st.Pods[key])
	}
}

// livePods is live for a target whose endpoints are Pods: the ready ones, or, when there is none, those that still serve while they
// terminate, as it is with the endpoints of a Service.
func (p *pass) livePods(t *target) *config.Cluster {
	if t.current != nil && t.pods == p.pods.version && t.pods > 0 {
		return t.current
	}
	var ready, terminating []netip.AddrPort
	t.endpointProblems = nil
	for _, pod := range p.pods.byNamespace[t.key.namespace] {
		if !t.selector.Matches(labels.Set(pod.Labels)) || !isReady(pod) {
			continue
		}
		ip, err := p.endpointAddress(pod.Status.PodIP)
		if err != nil {
			t.endpointProblems = append(t.endpointProblems, problem.Problem{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name,
				Field: "status.podIP", Reason: problem.InvalidBackend, Message: err.Error(), SetAside: "the address"})
			continue
		}
		at := netip.AddrPortFrom(ip, uint16(t.key.port))
		if pod.DeletionTimestamp != nil {
			terminating = append(terminating, at)
		} else {
			ready = append(ready, at)
		}
	}
	if len(ready) == 0 {
		ready = terminating
	}
	slices.SortFunc(ready, netip.AddrPort.Compare)
	made := t.cluster
	made.Endpoints = slices.Compact(ready)
	t.pods = p.pods.version
	if t.current == nil || !reflect.DeepEqual(*t.current, made) {
		t.current = &made
	}
	return t.current
}

func isReady(pod *corev1.Pod) bool {
	if pod.Status.PodIP == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
