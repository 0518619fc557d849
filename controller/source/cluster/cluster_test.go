package cluster

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/gateway/config"
)

// limit is what a test waits for at most.
const limit = 20 * time.Second

type lab struct {
	*Source
	api      *fakeAPI
	states   chan *source.State
	statuses chan source.Ref
}

func newLab(t *testing.T, api *fakeAPI) *lab {
	t.Helper()
	l := &lab{api: api, states: make(chan *source.State, 1000), statuses: make(chan source.Ref, 1000)}
	s, err := New(Options{Config: api.config(), Logger: slog.New(slog.DiscardHandler), DiscoverEvery: 50 * time.Millisecond,
		OnStatus: func(ref source.Ref) { l.statuses <- ref }})
	if err != nil {
		t.Fatal(err)
	}
	l.Source = s
	return l
}

func (l *lab) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Watch(ctx, func(s *source.State) { l.states <- s }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v", err)
		}
	})
}

// until returns the first state that is as wanted.
func (l *lab) until(t *testing.T, what string, is func(*source.State) bool) *source.State {
	t.Helper()
	deadline := time.After(limit)
	for {
		select {
		case s := <-l.states:
			if is(s) {
				return s
			}
		case <-deadline:
			t.Fatalf("no state with %s; waiting for: %v", what, l.Waiting())
		}
	}
}

func key(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}

const gatewayJSON = `{"metadata":{"namespace":"n","name":"g","uid":"u1","generation":1,"labels":{"a":"1"},
	"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}","keep":"this"}},
	"spec":{"gatewayClassName":"c","listeners":[{"name":"http","port":80,"protocol":"HTTP"}]},
	"status":{"conditions":[{"type":"Accepted","status":"Unknown","reason":"Pending","message":"","lastTransitionTime":null}]}}`

func TestStates(t *testing.T) {
	api := newFakeAPI(t)
	api.put(t, "gateways", gatewayJSON)
	api.put(t, "namespaces", `{"metadata":{"name":"n","labels":{"team":"x"}}}`)
	api.put(t, "services", `{"metadata":{"namespace":"n","name":"s"},"spec":{"ports":[{"port":80}]},"status":{"loadBalancer":{"ingress":[{"ip":"1.2.3.4"}]}}}`)
	api.put(t, "secrets", `{"metadata":{"namespace":"n","name":"unasked"},"data":{"k":"eA=="}}`)
	l := newLab(t, api)
	if err := l.Waiting(); err == nil {
		t.Error("ready before anything was read")
	}
	l.start(t)
	first := l.until(t, "the Gateway", func(s *source.State) bool { return len(s.Gateways) == 1 })
	g := first.Gateways[key("n", "g")]
	if len(g.Status.Conditions) != 0 || g.ResourceVersion != "" || g.ManagedFields != nil || len(g.Annotations) != 1 || g.UID != "u1" {
		t.Errorf("the Gateway shows what nobody reads: %+v", g)
	}
	if first.Namespaces[key("", "n")].Labels["team"] != "x" || len(first.Services) != 1 || len(first.Services[key("n", "s")].Status.LoadBalancer.Ingress) != 0 {
		t.Errorf("namespaces %v, services %v", first.Namespaces, first.Services)
	}
	if len(first.Secrets) != 0 || api.count("list secrets") != 0 || api.count("watch secrets") != 0 || api.count("list configmaps") != 0 || api.count("list pods") != 0 {
		t.Errorf("read what nobody asked for: %v", api.requests)
	}
	if full, ok := l.Current(source.Ref{Kind: "Gateway", Namespace: "n", Name: "g"}).(*gatewayv1.Gateway); !ok || len(full.Status.Conditions) != 1 || full.ResourceVersion == "" {
		t.Errorf("the current Gateway has no status: %+v", full)
	}

	// A change of something else: the Gateway is the same pointer, and so is the whole collection.
	api.put(t, "services", `{"metadata":{"namespace":"n","name":"s2"},"spec":{"ports":[{"port":80}]}}`)
	second := l.until(t, "two Services", func(s *source.State) bool { return len(s.Services) == 2 })
	if second.Gateways[key("n", "g")] != g || second.Revisions["Gateway"] != first.Revisions["Gateway"] || second.Revisions["Service"] == first.Revisions["Service"] {
		t.Errorf("revisions %v then %v", first.Revisions, second.Revisions)
	}
	if len(first.Services) != 1 {
		t.Error("a State that was reported changed")
	}

	api.remove("gateways", "n", "g")
	l.until(t, "no Gateway", func(s *source.State) bool { return len(s.Gateways) == 0 })
}

// A write to a status makes no State; whoever writes statuses is told.
func TestStatusWrites(t *testing.T) {
	api := newFakeAPI(t)
	api.put(t, "gateways", gatewayJSON)
	l := newLab(t, api)
	l.start(t)
	before := l.until(t, "the Gateway", func(s *source.State) bool { return len(s.Gateways) == 1 })
	ref := source.Ref{Kind: "Gateway", Namespace: "n", Name: "g"}
	version := l.Current(ref).GetResourceVersion()
	for len(l.statuses) > 0 {
		<-l.statuses
	}
	patch := func(version string) (metav1.Object, error) {
		return l.PatchStatus(t.Context(), ref, []byte(`{"metadata":{"resourceVersion":"`+version+`"},"status":{"attachedListenerSets":3}}`))
	}
	written, err := patch(version)
	if err != nil {
		t.Fatal(err)
	}
	if g := written.(*gatewayv1.Gateway); *g.Status.AttachedListenerSets != 3 || len(g.Status.Conditions) != 1 {
		t.Errorf("wrote %+v", g.Status)
	}
	select {
	case got := <-l.statuses:
		if got != ref {
			t.Errorf("told of %v", got)
		}
	case <-time.After(limit):
		t.Fatal("nobody was told of the write")
	}
	if _, err := patch(version); !apierrors.IsConflict(err) {
		t.Errorf("a write on an old version: %v", err)
	}
	if fresh, err := l.Fresh(t.Context(), ref); err != nil || fresh.GetResourceVersion() != written.GetResourceVersion() {
		t.Errorf("fresh: %v, %v", fresh, err)
	}
	if gone, err := l.Fresh(t.Context(), source.Ref{Kind: "Gateway", Namespace: "n", Name: "gone"}); err != nil || gone != nil {
		t.Errorf("a Gateway that is not there: %v, %v", gone, err)
	}
	// The next State comes from another change, and holds the same Gateway.
	api.put(t, "namespaces", `{"metadata":{"name":"other"}}`)
	after := l.until(t, "the namespace", func(s *source.State) bool { return len(s.Namespaces) == 1 })
	if after.Gateways[key("n", "g")] != before.Gateways[key("n", "g")] || after.Revisions["Gateway"] != before.Revisions["Gateway"] {
		t.Errorf("a status write made a new Gateway:\n%+v\n%+v", before.Gateways[key("n", "g")], after.Gateways[key("n", "g")])
	}
}

// Only wanted Secrets are read, each by its name, and a State waits until they are known.
func TestWant(t *testing.T) {
	api := newFakeAPI(t)
	for _, name := range []string{"a", "b", "c"} {
		api.put(t, "secrets", `{"metadata":{"namespace":"n","name":"`+name+`"},"data":{"k":"eA=="}}`)
	}
	l := newLab(t, api)
	l.start(t)
	l.until(t, "nothing", func(*source.State) bool { return true })
	wants := []config.Origin{{Kind: "Secret", Namespace: "n", Name: "a"}, {Kind: "Secret", Namespace: "n", Name: "missing"},
		{Kind: "ConfigMap", Namespace: "n", Name: "m"}}
	if l.Want(wants) {
		t.Error("what was never read is known")
	}
	s := l.until(t, "Secret a", func(s *source.State) bool { return len(s.Secrets) == 1 })
	if s.Secrets[key("n", "a")] == nil {
		t.Errorf("secrets %v", s.Secrets)
	}
	if !l.Want(wants) {
		t.Error("a State was reported, and what is missing is not known to be")
	}
	// An object that appears, changes and goes.
	api.put(t, "configmaps", `{"metadata":{"namespace":"n","name":"m"},"data":{"k":"x"}}`)
	l.until(t, "the ConfigMap", func(s *source.State) bool { return len(s.ConfigMaps) == 1 })
	// Another set: what is no longer wanted is gone, what stays is not read again.
	lists := api.count("list secrets a")
	if l.Want([]config.Origin{{Kind: "Secret", Namespace: "n", Name: "a"}, {Kind: "Secret", Namespace: "n", Name: "b"}}) {
		t.Error("b is known")
	}
	l.until(t, "a and b only", func(s *source.State) bool {
		return len(s.Secrets) == 2 && s.Secrets[key("n", "b")] != nil && len(s.ConfigMaps) == 0
	})
	if again := api.count("list secrets a"); again != lists {
		t.Errorf("a was listed %d times more", again-lists)
	}
	named := api.count("list secrets a") + api.count("list secrets b") + api.count("list secrets missing")
	if all := api.count("list secrets"); all != named || api.count("list secrets c") != 0 {
		t.Errorf("%d lists of Secrets, %d of them by a wanted name", all, named)
	}
	named = api.count("watch secrets a") + api.count("watch secrets b") + api.count("watch secrets missing")
	if all := api.count("watch secrets"); all != named {
		t.Errorf("%d watches of Secrets, %d of them by a wanted name", all, named)
	}
}

// A wanted object that the API server does not give holds a State back for no longer than patience.
func TestWantRefused(t *testing.T) {
	api := newFakeAPI(t)
	api.refuse["secrets"] = 403
	l := newLab(t, api)
	l.start(t)
	l.until(t, "nothing", func(*source.State) bool { return true })
	wants := []config.Origin{{Kind: "Secret", Namespace: "n", Name: "a"}}
	began := time.Now()
	if l.Want(wants) {
		t.Error("a refused Secret is known")
	}
	l.until(t, "no Secret", func(s *source.State) bool { return len(s.Secrets) == 0 })
	if took := time.Since(began); took < patience || took > patience+5*time.Second {
		t.Errorf("held back for %v", took)
	}
	if !l.Want(wants) {
		t.Error("held back for ever")
	}
}

// A kind whose CRD appears later is watched then, in an older version when that is what there is; one whose CRD goes is empty.
func TestKindsComeAndGo(t *testing.T) {
	api := newFakeAPI(t)
	api.without("tcproutes")
	l := newLab(t, api)
	l.start(t)
	l.until(t, "nothing", func(*source.State) bool { return true })
	api.serve(find("TCPRoute"), "v1alpha2")
	api.put(t, "tcproutes", `{"metadata":{"namespace":"n","name":"r"},"spec":{"parentRefs":[{"name":"g"}],"rules":[{}]}}`)
	s := l.until(t, "the route", func(s *source.State) bool { return len(s.TCPRoutes) == 1 })
	if r := s.TCPRoutes[key("n", "r")]; len(r.Spec.ParentRefs) != 1 || len(r.Spec.Rules) != 1 {
		t.Errorf("route %+v", r.Spec)
	}
	api.without("tcproutes")
	l.until(t, "no route", func(s *source.State) bool { return len(s.TCPRoutes) == 0 })
}

// What cannot be read holds the first State back, and says so; an optional kind does not.
func TestForbidden(t *testing.T) {
	api := newFakeAPI(t)
	api.refuse["clustertrustbundles"] = 403
	api.refuse["services"] = 403
	l := newLab(t, api)
	l.start(t)
	deadline := time.After(limit)
	for {
		err := l.Waiting()
		if err != nil && strings.Contains(err.Error(), "Service (") && !strings.Contains(err.Error(), ",") {
			break
		}
		select {
		case <-deadline:
			t.Fatalf("waiting: %v", err)
		case <-l.states:
			t.Fatal("a State without Services")
		case <-time.After(10 * time.Millisecond):
		}
	}
	api.mu.Lock()
	delete(api.refuse, "services")
	api.mu.Unlock()
	l.until(t, "nothing", func(*source.State) bool { return true })
	if err := l.Waiting(); err != nil {
		t.Error(err)
	}
}

// Pods are watched while a backend selects them, and reduced to what an endpoint is.
func TestPods(t *testing.T) {
	api := newFakeAPI(t)
	api.put(t, "pods", `{"metadata":{"namespace":"n","name":"p","labels":{"app":"x"},"annotations":{"a":"b"}},
		"spec":{"containers":[{"name":"c","image":"i"}]},
		"status":{"phase":"Running","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"}],"conditions":[{"type":"Ready","status":"True"},{"type":"Initialized","status":"True"}]}}`)
	l := newLab(t, api)
	l.start(t)
	l.until(t, "nothing", func(*source.State) bool { return true })
	api.put(t, "xbackends", `{"metadata":{"namespace":"n","name":"b"},"spec":{"type":"EndpointSelector","port":{"number":80},"endpointSelector":{}}}`)
	s := l.until(t, "the Pod", func(s *source.State) bool { return len(s.Pods) == 1 })
	if p := s.Pods[key("n", "p")]; p.Labels["app"] != "x" || p.Annotations != nil || p.Spec.Containers != nil || len(p.Status.Conditions) != 1 || p.Status.PodIP != "10.0.0.1" {
		t.Errorf("pod %+v", p)
	}
	api.remove("xbackends", "n", "b")
	l.until(t, "no Pod", func(s *source.State) bool { return len(s.Pods) == 0 })
}

// Every kind of a State is read, and into the type that the State holds.
func TestTable(t *testing.T) {
	table := map[string]bool{}
	for _, k := range kinds {
		table[k.name] = true
	}
	for _, name := range source.Kinds() {
		if !table[name] {
			t.Errorf("kind %s is not read", name)
		}
	}
	if len(table) != len(source.Kinds()) {
		t.Errorf("%d kinds are read, a State holds %d", len(table), len(source.Kinds()))
	}
	for _, k := range kinds {
		s := source.NewState()
		var objects []metav1.Object
		if k.scope == metadata {
			objects = append(objects, k.reduce(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "x"}}))
		}
		if err := s.Replace(k.name, objects); err != nil {
			t.Error(err)
		}
	}
}

// One object that its Go type cannot hold, although the CRD's schema lets it through, neither keeps the others of its kind from being read nor
// undoes what was read of it before.
func TestUnreadable(t *testing.T) {
	parameters := func(name, memory string) string {
		return `{"metadata":{"namespace":"n","name":"` + name + `"},"spec":{"image":"` + name + `","resources":{"limits":{"memory":"` + memory + `"}}}}`
	}
	api := newFakeAPI(t)
	api.put(t, "gatewayparameters", parameters("bad", "1e1.5"))
	api.put(t, "gatewayparameters", parameters("good", "1Gi"))
	l := newLab(t, api)
	l.start(t)
	s := l.until(t, "the good one", func(s *source.State) bool { return len(s.GatewayParameters) == 1 })
	if g := s.GatewayParameters[key("n", "good")]; g == nil || g.Spec.Image != "good" {
		t.Errorf("parameters %v", s.GatewayParameters)
	}
	// Of two changes in this order the watch must have taken the first when the second shows.
	api.put(t, "gatewayparameters", parameters("good", "1e1.5"))
	api.put(t, "gatewayparameters", parameters("more", "1Gi"))
	s = l.until(t, "one more", func(s *source.State) bool { return s.GatewayParameters[key("n", "more")] != nil })
	if g := s.GatewayParameters[key("n", "good")]; g == nil || g.Spec.Resources.Limits.Memory().String() != "1Gi" || len(s.GatewayParameters) != 2 {
		t.Errorf("parameters %v", s.GatewayParameters)
	}
}

// Somebody who refers to another new Secret all the time holds back others for no longer than patience; until the first plan is complete,
// all wait longer.
func TestWantWithoutEnd(t *testing.T) {
	s := newLab(t, newFakeAPI(t)).Source
	now := time.Unix(1000, 0)
	fresh := func() { // one Secret is known, another one is new
		clear(s.watchers)
		s.watchers[watchKey{"Secret", key("n", "new")}] = &watcher{key: watchKey{"Secret", key("n", "new")}, since: now}
	}
	count := func() time.Duration {
		began := now
		for fresh(); !s.settled(now); fresh() {
			now = now.Add(100 * time.Millisecond)
			if now.Sub(began) > 2*firstPatience {
				t.Fatal("held back for ever")
			}
		}
		return now.Sub(began)
	}
	if took := count(); took != firstPatience {
		t.Errorf("at first held back for %v", took)
	}
	if took := count(); took != patience {
		t.Errorf("held back for %v", took)
	}
}
