package gatewayapi

import (
	"net/netip"
	"reflect"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	gatewayxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// targetKey names a destination: an object that backendRefs may name, a port of it, and what it is to carry.
type targetKey struct {
	kind, namespace, name string
	port                  int32
	carries               carries
}

// carries is what a destination is to carry: the same port of a Service is one cluster for HTTP and another for streams of bytes.
type carries string

const (
	// carriesHTTP is HTTP, in the version that the destination says it speaks, which is HTTP/1.1 if it says nothing.
	carriesHTTP carries = ""
	// carriesGRPC is HTTP to a destination that says nothing of its version, and must speak HTTP/2 because a GRPCRoute leads there.
	carriesGRPC carries = "grpc"
	// carriesTCP is a stream of bytes; what the destination says of its protocol does not matter.
	carriesTCP carries = "tcp"
	// carriesUDP is datagrams.
	carriesUDP carries = "udp"
)

// String is the cluster's name: "Service/shop/app/80", or "Service/shop/dns/53/udp" for what does not carry HTTP as it comes. None of
// the parts can hold a "/".
func (k targetKey) String() string {
	name := k.kind + "/" + k.namespace + "/" + k.name + "/" + strconv.Itoa(int(k.port))
	if k.carries != carriesHTTP {
		name += "/" + string(k.carries)
	}
	return name
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
	service *corev1.Service
	backend *gatewayxv1alpha1.XBackend
	// bundles are the Secrets, ConfigMaps and ClusterTrustBundles that an XBackend names.
	bundles []bundleUse
	// closed says that nothing may be sent but what passes through unopened: the policy that says how cannot be followed.
	closed bool
	// tlsPolicy and traffic are the policies for it, nil for none; secured says that the first was looked for.
	tlsPolicy *tlsPolicy
	secured   bool
	traffic   *trafficPolicy
	at        place
	// certificate is what the cluster itself presents to its endpoints, nil for nothing.
	certificate *config.Certificate
	// wants are the Secrets and ConfigMaps that it names, see pass.want.
	wants []config.Origin
	// checked is the pass that last compared these with the State, used the one that last put the cluster into a Plan.
	checked, used uint64
	// kept is the pass that last put the cluster or a variant of it into a Plan.
	kept uint64
	// forgotten is set when another target may stand for the key.
	forgotten bool

	// selector chooses the Pods that are the endpoints; nil when they come from elsewhere.
	selector labels.Selector

	// variants are the cluster's copies for listeners that reach it in another way.
	variants map[variant]*variantCluster

	// current is the cluster with the endpoints of slices, or of the pods of a version of the index.
	current          *config.Cluster
	slices           []*discoveryv1.EndpointSlice
	pods             uint64
	reported         uint64 // the pass that last reported endpointProblems
	endpointProblems []problem.Problem
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
	*t = target{key: key, checked: p.run, used: t.used, kept: t.kept, current: t.current, variants: t.variants,
		at: p.place(key.kind, key.namespace, key.name)}
	t.cluster.Name = key.String()
	defer p.collectWants(&t.wants)()
	name := types.NamespacedName{Namespace: key.namespace, Name: key.name}
	switch key.kind {
	case "Service":
		t.service = p.st.Services[name]
		p.readService(t)
	case "XBackend":
		t.backend = p.st.XBackends[name]
		p.readXBackend(t)
	}
	if t.traffic = p.trafficPolicyOf(key); t.traffic != nil {
		t.regulateBy(t.traffic)
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
		if p.changed.any(services) && p.st.Services[name] != t.service || t.secured && p.tlsPolicyOf(name, t.portName) != t.tlsPolicy {
			return false
		}
	case "XBackend":
		if p.changed.any(xBackends) && p.st.XBackends[name] != t.backend || t.certified() && p.changed.any(referenceGrants) {
			return false
		}
	}
	return p.trafficPolicyOf(t.key) == t.traffic && p.sameBundles(t.bundles)
}

// live returns the target's cluster with its endpoints: the same pointer for as long as nothing in it changed.
func (p *pass) live(t *target) *config.Cluster {
	if t.selector != nil {
		return p.livePods(t)
	}
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
		if t.kept != p.run {
			t.forgotten = true
			delete(p.targets, key)
		}
	}
}

// refuse says why the target cannot be used.
func (t *target) refuse(reason problem.Reason, message string) {
	t.reason, t.message = reason, message
}
