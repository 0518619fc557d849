package cluster

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
)

// fakeAPI is an API server of maps: it discovers, lists, watches, reads and patches. Tests of everything that a real one decides run in
// test/cluster.
type fakeAPI struct {
	*httptest.Server

	mu       sync.Mutex
	version  int
	served   map[string][]string // resources by "group/version" or "v1"
	kinds    map[string]string   // kind by resource
	objects  map[string]map[string]any
	watches  map[*fakeWatch]bool
	requests map[string]int // by "verb resource" and, with a field selector, "verb resource name"
	refuse   map[string]int // status code by resource
}

type fakeWatch struct {
	resource, namespace, name string
	metadata                  bool
	events                    chan map[string]any
}

func newFakeAPI(t *testing.T) *fakeAPI {
	t.Helper()
	f := &fakeAPI{
		served: map[string][]string{}, kinds: map[string]string{}, objects: map[string]map[string]any{}, watches: map[*fakeWatch]bool{},
		requests: map[string]int{}, refuse: map[string]int{},
	}
	for _, k := range kinds {
		f.kinds[k.resource] = k.name
		f.serve(k, k.versions[0])
	}
	f.Server = httptest.NewServer(f)
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
	})
	return f
}

func (f *fakeAPI) serve(k *kind, version string) {
	gv := version
	if k.group != "" {
		gv = k.group + "/" + version
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.served[gv] = append(f.served[gv], k.resource)
}

// without stops serving a resource in every version.
func (f *fakeAPI) without(resource string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for gv, list := range f.served {
		var kept []string
		for _, r := range list {
			if r != resource {
				kept = append(kept, r)
			}
		}
		if f.served[gv] = kept; kept == nil {
			delete(f.served, gv)
		}
	}
}

func (f *fakeAPI) config() *rest.Config { return &rest.Config{Host: f.URL, QPS: -1} }

// put writes an object, given as JSON without kind, and tells whoever watches.
func (f *fakeAPI) put(t *testing.T, resource, object string) {
	t.Helper()
	o := map[string]any{}
	if err := json.Unmarshal([]byte(object), &o); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.store(resource, o)
}

func (f *fakeAPI) store(resource string, o map[string]any) {
	f.version++
	meta := o["metadata"].(map[string]any)
	meta["resourceVersion"] = fmt.Sprint(f.version)
	meta["managedFields"] = []any{map[string]any{"manager": "somebody", "operation": "Update"}}
	key := resource + "/" + text(meta["namespace"]) + "/" + text(meta["name"])
	event := "MODIFIED"
	if f.objects[key] == nil {
		event = "ADDED"
	}
	f.objects[key] = o
	f.tell(event, resource, o)
}

func (f *fakeAPI) remove(resource, namespace, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := resource + "/" + namespace + "/" + name
	o := f.objects[key]
	delete(f.objects, key)
	f.version++
	f.tell("DELETED", resource, o)
}

func (f *fakeAPI) tell(event, resource string, o map[string]any) {
	meta := o["metadata"].(map[string]any)
	for w := range f.watches {
		if w.resource == resource && (w.namespace == "" || w.namespace == text(meta["namespace"])) && (w.name == "" || w.name == text(meta["name"])) {
			w.events <- map[string]any{"type": event, "object": f.shown(resource, o, w.metadata)}
		}
	}
}

// shown gives an object its kind and version.
func (f *fakeAPI) shown(resource string, o map[string]any, metadata bool) map[string]any {
	if metadata {
		return map[string]any{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": o["metadata"]}
	}
	out := map[string]any{}
	for k, v := range o {
		out[k] = v
	}
	out["kind"], out["apiVersion"] = f.kinds[resource], f.gv(resource)
	return out
}

func (f *fakeAPI) gv(resource string) string {
	for gv, list := range f.served {
		for _, r := range list {
			if r == resource {
				return gv
			}
		}
	}
	return ""
}

// count returns how many requests were made.
func (f *fakeAPI) count(key string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[key]
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	gv := path[1]
	rest := path[2:]
	if path[0] == "apis" {
		gv, rest = path[1]+"/"+path[2], path[3:]
	}
	f.mu.Lock()
	list, known := f.served[gv]
	f.mu.Unlock()
	if !known {
		fail(w, http.StatusNotFound, "NotFound")
		return
	}
	if len(rest) == 0 {
		resources := []any{}
		for _, name := range list {
			resources = append(resources, map[string]any{"name": name, "kind": f.kinds[name]})
		}
		answer(w, map[string]any{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv, "resources": resources})
		return
	}
	namespace := ""
	if rest[0] == "namespaces" && len(rest) > 2 {
		namespace, rest = rest[1], rest[2:]
	}
	f.resource(w, r, rest[0], namespace, rest[1:])
}

func (f *fakeAPI) resource(w http.ResponseWriter, r *http.Request, resource, namespace string, rest []string) {
	q := r.URL.Query()
	name := strings.TrimPrefix(q.Get("fieldSelector"), "metadata.name=")
	verb := strings.ToLower(r.Method)
	if len(rest) == 0 {
		verb = "list"
		if q.Get("watch") != "" {
			verb = "watch"
		}
	}
	f.mu.Lock()
	f.requests[verb+" "+resource]++
	if name != "" {
		f.requests[verb+" "+resource+" "+name]++
	}
	code := f.refuse[resource]
	f.mu.Unlock()
	metadata := strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadata")
	switch {
	case code != 0:
		fail(w, code, "Forbidden")
	case q.Get("sendInitialEvents") != "":
		fail(w, http.StatusUnprocessableEntity, "Invalid") // as API servers before watch-list
	case verb == "watch":
		f.watch(w, r, &fakeWatch{resource, namespace, name, metadata, make(chan map[string]any, 1000)}, q.Get("resourceVersion"))
	case verb == "list":
		f.list(w, resource, namespace, name, metadata)
	case verb == "patch":
		f.patch(w, r, resource+"/"+namespace+"/"+rest[0], resource)
	default:
		f.mu.Lock()
		o := f.objects[resource+"/"+namespace+"/"+rest[0]]
		f.mu.Unlock()
		if o == nil {
			fail(w, http.StatusNotFound, "NotFound")
			return
		}
		answer(w, f.shown(resource, o, false))
	}
}

func (f *fakeAPI) list(w http.ResponseWriter, resource, namespace, name string, metadata bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	items := []any{}
	for key, o := range f.objects {
		if strings.HasPrefix(key, resource+"/"+namespace) && (name == "" || strings.HasSuffix(key, "/"+name)) {
			items = append(items, f.shown(resource, o, metadata))
		}
	}
	kind, gv := f.kinds[resource]+"List", f.gv(resource)
	if metadata {
		kind, gv = "PartialObjectMetadataList", "meta.k8s.io/v1"
	}
	answer(w, map[string]any{"kind": kind, "apiVersion": gv, "metadata": map[string]any{"resourceVersion": fmt.Sprint(f.version)}, "items": items})
}

func (f *fakeAPI) watch(w http.ResponseWriter, r *http.Request, one *fakeWatch, since string) {
	f.mu.Lock()
	if since != fmt.Sprint(f.version) { // something happened between list and watch: begin anew
		for key, o := range f.objects {
			if strings.HasPrefix(key, one.resource+"/"+one.namespace) && (one.name == "" || strings.HasSuffix(key, "/"+one.name)) {
				one.events <- map[string]any{"type": "MODIFIED", "object": f.shown(one.resource, o, one.metadata)}
			}
		}
	}
	f.watches[one] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watches, one)
	}()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case e := <-one.events:
			_ = json.NewEncoder(w).Encode(e)
			_ = flush.Flush()
		}
	}
}

func (f *fakeAPI) patch(w http.ResponseWriter, r *http.Request, key, resource string) {
	body := map[string]any{}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		fail(w, http.StatusBadRequest, "BadRequest")
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.objects[key]
	meta, _ := body["metadata"].(map[string]any)
	switch {
	case o == nil:
		fail(w, http.StatusNotFound, "NotFound")
		return
	case meta["resourceVersion"] != o["metadata"].(map[string]any)["resourceVersion"]:
		fail(w, http.StatusConflict, "Conflict")
		return
	}
	raw, _ := json.Marshal(o)
	next := map[string]any{}
	_ = json.Unmarshal(raw, &next)
	status, _ := next["status"].(map[string]any)
	if status == nil {
		status = map[string]any{}
	}
	for k, v := range body["status"].(map[string]any) {
		status[k] = v
	}
	next["status"] = status
	f.store(resource, next)
	answer(w, f.shown(resource, next, false))
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
		"message": "the test says so"})
}
