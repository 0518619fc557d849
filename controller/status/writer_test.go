package status

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/gateway/config"
)

// limit is what a test waits for at most.
const limit = 20 * time.Second

// fakeCluster holds routes. Writes are applied, unless the resource version is another; what Current shows lags behind until show is called.
type fakeCluster struct {
	mu      sync.Mutex
	version int
	stored  map[source.Ref]*gatewayv1.HTTPRoute // guarded by mu
	seen    map[source.Ref]*gatewayv1.HTTPRoute // guarded by mu
	writes  map[source.Ref]int                  // guarded by mu
	results chan string
}

func newFakeCluster(names ...string) *fakeCluster {
	f := &fakeCluster{stored: map[source.Ref]*gatewayv1.HTTPRoute{}, seen: map[source.Ref]*gatewayv1.HTTPRoute{}, writes: map[source.Ref]int{},
		results: make(chan string, 10_000)}
	for _, name := range names {
		f.edit(name, func(*gatewayv1.HTTPRoute) {})
	}
	f.show()
	return f
}

func routeRef(name string) source.Ref {
	return source.Ref{Kind: "HTTPRoute", Namespace: "n", Name: name}
}

// edit changes what is stored, as somebody else would.
func (f *fakeCluster) edit(name string, change func(*gatewayv1.HTTPRoute)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	next := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, UID: "u", Generation: 1}}
	next.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: "g"}}
	if old := f.stored[routeRef(name)]; old != nil {
		next = old.DeepCopy()
	}
	change(next)
	next.ResourceVersion = fmt.Sprint(f.version)
	f.stored[routeRef(name)] = next
}

// show makes Current catch up.
func (f *fakeCluster) show() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.seen)
	for ref, o := range f.stored {
		f.seen[ref] = o
	}
}

func (f *fakeCluster) Current(ref source.Ref) metav1.Object {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o := f.seen[ref]; o != nil {
		return o
	}
	return nil
}

func (f *fakeCluster) Refs() []source.Ref {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []source.Ref
	for ref := range f.seen {
		out = append(out, ref)
	}
	return out
}

func (f *fakeCluster) Fresh(_ context.Context, ref source.Ref) (metav1.Object, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o := f.stored[ref]; o != nil {
		return o, nil
	}
	return nil, nil
}

func (f *fakeCluster) PatchStatus(_ context.Context, ref source.Ref, patch []byte) (metav1.Object, error) {
	var p struct {
		Metadata struct{ ResourceVersion, UID string }
		Status   struct{ Parents []gatewayv1.RouteParentStatus }
	}
	if err := json.Unmarshal(patch, &p); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.stored[ref]
	if o == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{}, ref.Name)
	}
	if o.ResourceVersion != p.Metadata.ResourceVersion || p.Metadata.UID != "u" {
		return nil, apierrors.NewConflict(schema.GroupResource{}, ref.Name, fmt.Errorf("another version"))
	}
	f.version++
	next := o.DeepCopy()
	next.Status.Parents = p.Status.Parents
	next.ResourceVersion = fmt.Sprint(f.version)
	f.stored[ref] = next
	f.writes[ref]++
	return next, nil
}

func (f *fakeCluster) route(name string) *gatewayv1.HTTPRoute {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stored[routeRef(name)]
}

// startWriter runs a Writer on the cluster. settled waits until it has nothing to do.
func startWriter(t *testing.T, f *fakeCluster) *Writer {
	t.Helper()
	w := New(Options{Cluster: f, Controller: "gatehouse.dev/controller", Rate: 10_000, Logger: slog.New(slog.DiscardHandler),
		Serving: func(string) (Serving, time.Duration) { return Serving{}, 0 }, OnWrite: func(_, result string) { f.results <- result }})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return w
}

// expect waits for writes to end so, in any order, and for none beside.
func (f *fakeCluster) expect(t *testing.T, want ...string) {
	t.Helper()
	got := map[string]int{}
	for range want {
		select {
		case r := <-f.results:
			got[r]++
		case <-time.After(limit):
			t.Fatalf("writes %v, want %v", got, want)
		}
	}
	for _, r := range want {
		got[r]--
	}
	for r, n := range got {
		if n != 0 {
			t.Errorf("%d more or less of %q than in %v", n, r, want)
		}
	}
}

func outcome(name, reason string) plan.Outcome {
	return plan.Outcome{
		Object:     config.Origin{Kind: "HTTPRoute", Namespace: "n", Name: name, Generation: 1},
		Parent:     config.Origin{Kind: "Gateway", Namespace: "n", Name: "g"},
		Conditions: []plan.Condition{{Type: "Accepted", Status: reason == "Accepted", Reason: reason}}, AttachedRoutes: -1,
	}
}

func TestWriterWritesDifferencesOnly(t *testing.T) {
	f := newFakeCluster("a", "b", "c")
	f.edit("c", func(r *gatewayv1.HTTPRoute) { // left over by a controller before this one
		r.Status.Parents = []gatewayv1.RouteParentStatus{{ControllerName: "gatehouse.dev/controller", ParentRef: gatewayv1.ParentReference{Name: "old"}}}
	})
	f.show()
	w := startWriter(t, f)
	w.Plan(&plan.Plan{Outcomes: []plan.Outcome{outcome("a", "Accepted"), outcome("b", "Accepted")}})
	f.expect(t, "written", "written", "written")
	if r := f.route("c"); len(r.Status.Parents) != 0 {
		t.Errorf("c is none of ours any more: %+v", r.Status.Parents)
	}
	if r := f.route("a"); len(r.Status.Parents) != 1 || r.Status.Parents[0].Conditions[0].Reason != "Accepted" {
		t.Errorf("a: %+v", r.Status.Parents)
	}
	// What was seen lags behind: nothing is written again for it. Then it catches up.
	w.Changed(routeRef("a"))
	w.Changed(routeRef("b"))
	f.show()
	w.Changed(routeRef("a"))
	// The next plan says another thing of b only.
	w.Plan(&plan.Plan{Outcomes: []plan.Outcome{outcome("a", "Accepted"), outcome("b", "NotAllowedByListeners")}})
	f.expect(t, "written")
	f.show()
	w.Changed(routeRef("b"))
	// b lost its last reference.
	w.Plan(&plan.Plan{Outcomes: []plan.Outcome{outcome("a", "Accepted")}})
	f.expect(t, "written")
	if f.writes[routeRef("a")] != 1 || f.writes[routeRef("b")] != 3 || f.writes[routeRef("c")] != 1 || len(f.route("b").Status.Parents) != 0 {
		t.Errorf("writes %v, b: %+v", f.writes, f.route("b").Status)
	}
}

// A conflict leads to a fresh read, on which the entries of others are kept.
func TestWriterConflict(t *testing.T) {
	f := newFakeCluster("a")
	f.edit("a", func(r *gatewayv1.HTTPRoute) { // not seen yet
		r.Status.Parents = []gatewayv1.RouteParentStatus{{ControllerName: "example.com/other", ParentRef: gatewayv1.ParentReference{Name: "x"}}}
	})
	w := startWriter(t, f)
	w.Plan(&plan.Plan{Outcomes: []plan.Outcome{outcome("a", "Accepted")}})
	f.expect(t, "conflict", "written")
	if r := f.route("a"); len(r.Status.Parents) != 2 || r.Status.Parents[0].ControllerName != "example.com/other" {
		t.Errorf("parents %+v", r.Status.Parents)
	}
	// Somebody takes our entry out: it comes back.
	f.edit("a", func(r *gatewayv1.HTTPRoute) { r.Status.Parents = nil })
	f.show()
	w.Changed(routeRef("a"))
	f.expect(t, "written")
	if r := f.route("a"); len(r.Status.Parents) != 1 {
		t.Errorf("parents %+v", r.Status.Parents)
	}
}

// gatewayCluster holds one Gateway and counts writes to it.
type gatewayCluster struct {
	*fakeCluster
	gateway *gatewayv1.Gateway // guarded by mu
}

func (g *gatewayCluster) Refs() []source.Ref {
	return []source.Ref{{Kind: "Gateway", Namespace: "n", Name: "g"}}
}

func (g *gatewayCluster) Current(source.Ref) metav1.Object {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.gateway
}

func (g *gatewayCluster) PatchStatus(_ context.Context, _ source.Ref, patch []byte) (metav1.Object, error) {
	var p struct{ Status gatewayv1.GatewayStatus }
	if err := json.Unmarshal(patch, &p); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.version++
	next := g.gateway.DeepCopy()
	next.ResourceVersion = fmt.Sprint(g.version)
	if p.Status.Conditions != nil {
		next.Status.Conditions = p.Status.Conditions
	}
	if p.Status.Listeners != nil {
		next.Status.Listeners = p.Status.Listeners
	}
	if p.Status.AttachedListenerSets != nil {
		next.Status.AttachedListenerSets = p.Status.AttachedListenerSets
	}
	g.gateway = next
	return next, nil
}

// Many plans and acknowledgements within a moment are few writes of the Gateway that they concern, and the last one counts.
func TestWriterGathers(t *testing.T) {
	g := &gatewayCluster{fakeCluster: newFakeCluster(), gateway: &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "g", Generation: 1}}}
	results := make(chan string, 1000)
	var asked sync.WaitGroup
	asked.Add(1)
	first := sync.OnceFunc(asked.Done)
	w := New(Options{Cluster: g, Controller: "gatehouse.dev/controller", Rate: 10_000, Logger: slog.New(slog.DiscardHandler),
		Serving: func(string) (Serving, time.Duration) { first(); return Serving{}, 0 }, OnWrite: func(_, result string) { results <- result }})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	const plans = 200
	for i := range plans {
		origin := config.Origin{Kind: "Gateway", Namespace: "n", Name: "g", Generation: 1}
		own := plan.Outcome{Object: origin, AttachedRoutes: -1, AttachedListenerSets: i}
		w.Plan(&plan.Plan{Outcomes: []plan.Outcome{own}})
		w.Gateway("n/g")
		if i == 0 {
			asked.Wait()
		}
	}
	for writes := 1; ; writes++ {
		select {
		case <-results:
		case <-time.After(limit):
			t.Fatal("the last plan was not written")
		}
		if sets := g.Current(source.Ref{}).(*gatewayv1.Gateway).Status.AttachedListenerSets; sets != nil && *sets == plans-1 {
			if writes > plans/4 {
				t.Errorf("%d writes for %d plans", writes, plans)
			}
			return
		}
	}
}

func TestWriterGone(t *testing.T) {
	f := newFakeCluster("a")
	f.mu.Lock()
	delete(f.stored, routeRef("a"))
	f.mu.Unlock()
	w := startWriter(t, f)
	w.Plan(&plan.Plan{Outcomes: []plan.Outcome{outcome("a", "Accepted")}})
	f.expect(t, "gone")
}

// An object that was deleted and created again under its name is not told what became of the one before.
func TestWriterRecreated(t *testing.T) {
	f := newFakeCluster("a", "b")
	w := startWriter(t, f)
	old := outcome("a", "NotAllowedByListeners")
	old.Object.Generation = 5
	w.Plan(&plan.Plan{Outcomes: []plan.Outcome{old, outcome("b", "Accepted")}})
	f.expect(t, "written") // b
	// Somebody else's mistake, or a write of an older version: a generation that this object never had.
	f.edit("a", func(r *gatewayv1.HTTPRoute) {
		r.Status.Parents = []gatewayv1.RouteParentStatus{{
			ControllerName: "gatehouse.dev/controller", ParentRef: parentRef(&old, r.Spec.ParentRefs, "n"),
			Conditions: []metav1.Condition{{Type: "Accepted", Status: "False", Reason: "NotAllowedByListeners", ObservedGeneration: 5}},
		}}
	})
	f.show()
	w.Plan(&plan.Plan{Outcomes: []plan.Outcome{outcome("a", "Accepted"), outcome("b", "Accepted")}})
	f.expect(t, "written")
	if c := f.route("a").Status.Parents[0].Conditions[0]; c.Reason != "Accepted" || c.ObservedGeneration != 1 || f.writes[routeRef("a")] != 1 {
		t.Errorf("condition %+v after %d writes", c, f.writes[routeRef("a")])
	}
}

func TestOfAnother(t *testing.T) {
	origin := config.Origin{Kind: "Gateway", Namespace: "n", Name: "g", Generation: 2}
	p := &plan.Plan{Outcomes: []plan.Outcome{{Object: origin}}, Gateways: []plan.Gateway{{Origin: origin, UID: "u1"}}}
	for name, c := range map[string]struct {
		uid        string
		generation int64
		want       bool
	}{
		"the same":       {"u1", 2, false},
		"changed since":  {"u1", 3, false},
		"created again":  {"u2", 1, true},
		"another, older": {"u2", 2, true},
	} {
		o := &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{UID: types.UID(c.uid), Generation: c.generation}}
		if got := ofAnother(p, p.Outcomes, o); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
