// Package status writes what became of objects into their status: outcomes of a translation, and what proxies and cluster say of the
// Gateways' proxies. Pure functions say what a status should be (desired.go, gateway.go); the Writer compares that with what it is and
// writes differences only.
//
//	plan.Plan -----\
//	Serving --------> desired -> differs? -> merge patch of the status subresource, on the version that was read
//	Current object -/
//
// It knows neither translators nor how configurations reach proxies.
package status

import (
	"context"
	"encoding/json"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"

	"golang.org/x/time/rate"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"gatehouse.dev/gatehouse/controller/plan"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/gateway/config"
)

// Cluster is where objects are read and their status is written.
type Cluster interface {
	// Current returns an object as it was last seen, or nil. It is not changed.
	Current(source.Ref) metav1.Object
	// Refs returns every object that has a status to write.
	Refs() []source.Ref
	// Fresh reads an object; nil when it is gone.
	Fresh(context.Context, source.Ref) (metav1.Object, error)
	// PatchStatus merges a patch into the status and returns the object. It fails with a conflict when the object is not of the resource
	// version that the patch names.
	PatchStatus(context.Context, source.Ref, []byte) (metav1.Object, error)
}

// Options are what a Writer needs.
type Options struct {
	Cluster Cluster
	// Controller is the controllerName under which entries are written.
	Controller string
	// Features go into GatewayClass.status.supportedFeatures, sorted.
	Features []string
	// Serving says what is known of a Gateway's proxies ("namespace/name"). A positive wait says that this is about to change: ask again
	// then, and write nothing before.
	Serving func(gateway string) (s Serving, wait time.Duration)
	// Rate is the most writes a second, on average; 0 means 100. Concurrency is the most at once; 0 means 8.
	Rate        float64
	Concurrency int
	Logger      *slog.Logger
	// OnWrite is told how each write ended: "written", "conflict", "gone" or "failed". It may be nil.
	OnWrite func(kind, result string)
	// Now is time.Now when nil.
	Now func() time.Time
}

// Writer keeps the status of objects true. Its methods are safe for concurrent use.
type Writer struct {
	opts    Options
	queue   workqueue.TypedRateLimitingInterface[source.Ref]
	limiter *rate.Limiter

	mu   sync.Mutex
	plan *plan.Plan // the newest; guarded by mu
	// written holds what the API server answered to a write, until Current has caught up; guarded by mu.
	written map[source.Ref]written
}

// written is an object after a write, and the resource version that it had before.
type written struct {
	base   string
	object metav1.Object
}

// gather is how long changes of a Gateway gather before its status is looked at: many routes attach to it, and many proxies answer, one after
// the other.
const gather = 100 * time.Millisecond

// conflicts is how often a write is tried again at once on a fresh read.
const conflicts = 4

// New returns a Writer, which writes nothing before Run.
func New(o Options) *Writer {
	if o.Rate == 0 {
		o.Rate = 100
	}
	if o.Concurrency == 0 {
		o.Concurrency = 8
	}
	if o.OnWrite == nil {
		o.OnWrite = func(string, string) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Writer{
		opts: o,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[source.Ref](100*time.Millisecond, 30*time.Second)),
		limiter: rate.NewLimiter(rate.Limit(o.Rate), int(2*o.Rate)+1),
		written: map[source.Ref]written{},
	}
}

// Run writes until ctx ends.
func (w *Writer) Run(ctx context.Context) {
	var workers sync.WaitGroup
	for range w.opts.Concurrency {
		workers.Go(func() {
			for {
				ref, shutdown := w.queue.Get()
				if shutdown {
					return
				}
				w.process(ctx, ref)
				w.queue.Done(ref)
			}
		})
	}
	<-ctx.Done()
	w.queue.ShutDown()
	workers.Wait()
}

// Plan takes the newest plan. What it says differently from the one before is written; with the first one every object is looked at.
func (w *Writer) Plan(p *plan.Plan) {
	w.mu.Lock()
	before := w.plan
	w.plan = p
	w.mu.Unlock()
	if before == nil {
		for _, ref := range w.opts.Cluster.Refs() {
			w.queue.Add(ref)
		}
		return
	}
	eachGroup(before.Outcomes, p.Outcomes, func(ref source.Ref, was, is []plan.Outcome) {
		// What is known of the proxies changes with every plan.
		switch {
		case ref.Kind == "Gateway" || ref.Kind == "ListenerSet":
			w.queue.AddAfter(ref, gather)
		case !slices.EqualFunc(was, is, sameOutcome):
			w.queue.Add(ref)
		}
	})
}

// Gateway says that what is known of a Gateway's proxies changed.
func (w *Writer) Gateway(gateway string) {
	namespace, name, _ := strings.Cut(gateway, "/")
	w.queue.AddAfter(source.Ref{Kind: "Gateway", Namespace: namespace, Name: name}, gather)
	w.mu.Lock()
	p := w.plan
	w.mu.Unlock()
	if p == nil {
		return
	}
	first := search(p.Outcomes, source.Ref{Kind: "ListenerSet"})
	for _, o := range p.Outcomes[first:] {
		if o.Object.Kind != "ListenerSet" {
			return
		}
		if o.Object.Rule == "" && o.Parent.Namespace == namespace && o.Parent.Name == name {
			w.queue.AddAfter(refOf(o.Object), gather)
		}
	}
}

// Changed says that somebody wrote an object.
func (w *Writer) Changed(ref source.Ref) {
	w.mu.Lock()
	began := w.plan != nil
	w.mu.Unlock()
	if began { // the first plan looks at everything
		// What is new about the object comes with the next plan, which is on its way. And another writer that takes every write of ours back
		// must not get the next one at once: the two would keep the API server busy, and others waiting.
		w.queue.AddAfter(ref, gather)
	}
}

// process brings the status of one object up to date.
func (w *Writer) process(ctx context.Context, ref source.Ref) {
	w.mu.Lock()
	p := w.plan
	w.mu.Unlock()
	if p == nil || ctx.Err() != nil {
		return
	}
	outcomes := outcomesOf(p, ref)
	v := &view{controller: gatewayv1.GatewayController(w.opts.Controller), features: w.opts.Features,
		now: metav1.NewTime(w.opts.Now().Truncate(time.Second))}
	var wait time.Duration
	v.serving = func(gateway string) Serving {
		s, again := w.opts.Serving(gateway)
		wait = max(wait, again)
		return s
	}
	object := w.current(ref)
	for range conflicts {
		if object == nil {
			w.queue.Forget(ref)
			return
		}
		if ofAnother(p, outcomes, object) {
			w.queue.Forget(ref) // the next plan knows this object and brings it here again
			return
		}
		f := v.desired(object, outcomes)
		if wait > 0 {
			w.queue.AddAfter(ref, wait)
			return
		}
		if len(f) == 0 {
			w.queue.Forget(ref)
			return
		}
		next, err := w.write(ctx, ref, object, f)
		switch {
		case err == nil:
			w.opts.OnWrite(ref.Kind, "written")
			w.remember(ref, object.GetResourceVersion(), next)
			w.queue.Forget(ref)
			return
		case apierrors.IsNotFound(err):
			w.opts.OnWrite(ref.Kind, "gone")
			w.queue.Forget(ref)
			return
		case apierrors.IsConflict(err):
			w.opts.OnWrite(ref.Kind, "conflict")
			if object, err = w.opts.Cluster.Fresh(ctx, ref); err == nil {
				continue
			}
		}
		if ctx.Err() != nil {
			return
		}
		w.opts.OnWrite(ref.Kind, "failed")
		w.opts.Logger.Warn("status cannot be written; trying again", "object", ref.Kind+"/"+ref.Namespace+"/"+ref.Name, "error", err)
		w.queue.AddRateLimited(ref)
		return
	}
	w.queue.AddRateLimited(ref) // others write all the time
}

// ofAnother reports whether outcomes are of an object that was deleted, while the one at hand was created since under the same name. A plan is
// never ahead of the objects that are seen, so a generation that the object has not reached yet is another object's.
func ofAnother(p *plan.Plan, outcomes []plan.Outcome, object metav1.Object) bool {
	for i := range outcomes {
		if outcomes[i].Object.Generation > object.GetGeneration() {
			return true
		}
	}
	if len(outcomes) == 0 || outcomes[0].Object.Kind != "Gateway" {
		return false
	}
	i, found := slices.BinarySearchFunc(p.Gateways, outcomes[0].Object, func(g plan.Gateway, o config.Origin) int {
		return compareRefs(refOf(g.Origin), refOf(o))
	})
	return found && p.Gateways[i].UID != "" && p.Gateways[i].UID != string(object.GetUID())
}

// write sends the fields as a merge patch of the object's status. The resource version makes it fail when somebody wrote meanwhile, whose
// entries in the lists would be lost.
func (w *Writer) write(ctx context.Context, ref source.Ref, object metav1.Object, f fields) (metav1.Object, error) {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": object.GetResourceVersion(), "uid": object.GetUID()},
		"status":   f,
	})
	if err != nil {
		return nil, err
	}
	if err := w.limiter.Wait(ctx); err != nil {
		return nil, err
	}
	return w.opts.Cluster.PatchStatus(ctx, ref, patch)
}

// current returns an object as it was last seen or written, whichever is newer.
func (w *Writer) current(ref source.Ref) metav1.Object {
	seen := w.opts.Cluster.Current(ref)
	w.mu.Lock()
	defer w.mu.Unlock()
	last, ok := w.written[ref]
	if ok && seen != nil && seen.GetResourceVersion() == last.base {
		return last.object
	}
	delete(w.written, ref)
	return seen
}

func (w *Writer) remember(ref source.Ref, base string, object metav1.Object) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written[ref] = written{base, object}
}

func refOf(o config.Origin) source.Ref {
	return source.Ref{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}
}

// search returns the index of the first outcome that is not before an object; outcomes are sorted by kind, namespace and name.
func search(outcomes []plan.Outcome, ref source.Ref) int {
	i, _ := slices.BinarySearchFunc(outcomes, ref, func(o plan.Outcome, ref source.Ref) int { return compareRefs(refOf(o.Object), ref) })
	return i
}

// outcomesOf returns the outcomes of an object and its parts.
func outcomesOf(p *plan.Plan, ref source.Ref) []plan.Outcome {
	first := search(p.Outcomes, ref)
	last := first
	for last < len(p.Outcomes) && refOf(p.Outcomes[last].Object) == ref {
		last++
	}
	return p.Outcomes[first:last]
}

// eachGroup calls f for every object that has outcomes in one of two plans.
func eachGroup(before, after []plan.Outcome, f func(ref source.Ref, was, is []plan.Outcome)) {
	take := func(list *[]plan.Outcome, ref source.Ref) []plan.Outcome {
		n := 0
		for n < len(*list) && refOf((*list)[n].Object) == ref {
			n++
		}
		taken := (*list)[:n]
		*list = (*list)[n:]
		return taken
	}
	for len(before) > 0 || len(after) > 0 {
		var ref source.Ref
		if len(after) == 0 || len(before) > 0 && compareRefs(refOf(before[0].Object), refOf(after[0].Object)) < 0 {
			ref = refOf(before[0].Object)
		} else {
			ref = refOf(after[0].Object)
		}
		f(ref, take(&before, ref), take(&after, ref))
	}
}

func compareRefs(a, b source.Ref) int {
	if c := strings.Compare(a.Kind, b.Kind); c != 0 {
		return c
	}
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

func sameOutcome(a, b plan.Outcome) bool { return reflect.DeepEqual(a, b) }
