package gatewayapi

import (
	"net/netip"
	"reflect"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// targetKey names a destination: an object that backendRefs may name, and a port of it.
type targetKey struct {
	kind, namespace, name string
	port                  int32
}

// String is the cluster's name. None of the parts can hold a "/".
func (k targetKey) String() string {
	return k.kind + "/" + k.namespace + "/" + k.name + "/" + strconv.Itoa(int(k.port))
}

// target is a destination as the objects describe it, without its endpoints, which change far more often than the rest.
type target struct {
	key targetKey
	// reason and message say why it cannot be used; reason is "" when it can.
	reason  problem.Reason
	message string
	// cluster has no Endpoints yet.
	cluster config.Cluster
	// portName is the name of the Service's port, by which EndpointSlices know it.
	portName string
	// sliced is whether the endpoints come from EndpointSlices.
	sliced bool

	// What it was made of.
	service    *corev1.Service
	backend    *gatewayxv1alpha1.XBackend
	configMaps []configMapUse
	at         place
	// checked is the pass that last compared these with the State, used the one that last put the cluster into a Plan.
	checked, used uint64
	// forgotten is set when another target may stand for the key.
	forgotten bool

	// current is the cluster with the endpoints of slices.
	current          *config.Cluster
	slices           []*discoveryv1.EndpointSlice
	endpointProblems []problem.Problem
}

type configMapUse struct {
	key types.NamespacedName
	obj *corev1.ConfigMap
}

// target returns a destination, up to date.
func (p *pass) target(key targetKey) *target {
	t := p.targets[key]
	if t == nil {
		t = &target{key: key}
		p.targets[key] = t
	}
	p.refresh(t)
	return t
}

// refresh reads a target's objects again when one of them changed.
func (p *pass) refresh(t *target) {
	if t.checked == p.run {
		return
	}
	known := t.checked > 0
	t.checked = p.run
	if known && p.fresh(t) {
		return
	}
	key := t.key
	*t = target{key: key, checked: p.run, used: t.used, current: t.current, at: p.place(key.kind, key.namespace, key.name)}
	t.cluster.Name = key.String()
	name := types.NamespacedName{Namespace: key.namespace, Name: key.name}
	switch key.kind {
	case "Service":
		t.service = p.st.Services[name]
		p.readService(t)
	case "XBackend":
		t.backend = p.st.XBackends[name]
		p.readXBackend(t)
	}
}

// fresh reports whether a target's objects are the same as when it was made.
func (p *pass) fresh(t *target) bool {
	if p.place(t.key.kind, t.key.namespace, t.key.name) != t.at {
		return false
	}
	name := types.NamespacedName{Namespace: t.key.namespace, Name: t.key.name}
	switch t.key.kind {
	case "Service":
		if p.changed.any(services) && p.st.Services[name] != t.service {
			return false
		}
	case "XBackend":
		if p.changed.any(xBackends) && p.st.XBackends[name] != t.backend {
			return false
		}
	}
	return !p.changed.any(configMaps) || !slices.ContainsFunc(t.configMaps, func(use configMapUse) bool {
		return p.st.ConfigMaps[use.key] != use.obj
	})
}

// live returns the target's cluster with its endpoints: the same pointer for as long as nothing in it changed.
func (p *pass) live(t *target) *config.Cluster {
	var list []*discoveryv1.EndpointSlice
	if t.sliced {
		list = p.slices[types.NamespacedName{Namespace: t.key.namespace, Name: t.key.name}]
	}
	if t.current != nil && t.slices != nil && slices.Equal(t.slices, list) {
		return t.current
	}
	made := t.cluster
	var endpoints []netip.AddrPort
	if t.sliced {
		endpoints, t.endpointProblems = p.endpoints(t, list)
	}
	made.Endpoints = endpoints
	t.slices = slices.Clip(append([]*discoveryv1.EndpointSlice{}, list...))
	if t.current == nil || !reflect.DeepEqual(*t.current, made) {
		t.current = &made
	}
	return t.current
}

// forgetTargets drops destinations that no served route names any more, when they have become many.
func (p *pass) forgetTargets(used int) {
	if len(p.targets) <= 2*used+64 {
		return
	}
	for key, t := range p.targets {
		if t.used != p.run {
			t.forgotten = true
			delete(p.targets, key)
		}
	}
}

// refuse says why the target cannot be used.
func (t *target) refuse(reason problem.Reason, message string) {
	t.reason, t.message = reason, message
}
