package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/controller/source/manifest"
	"gatehouse.dev/gatehouse/controller/source/schema"
)

// document is what one text comes to, wherever it stands: its lines are counted from its own start. A text that has not changed
// is never parsed or validated again. The text is kept, and nothing of its parse, so that the line of a field can be found when
// someone asks; that is once in a while, for one of thousands.
type document struct {
	key     documentKey
	entries []*entry
	// anonymous is set when the text holds an object that cannot be named: it may be any object that its file held before.
	anonymous bool
}

// documentKey is the text itself: the same text is the same document.
type documentKey struct {
	text string
	json bool
}

// entry is one object of a document, or what is wrong in its place.
type entry struct {
	// ref is the zero Ref when the object cannot be named.
	ref Ref
	// prefix leads to the object from the document's root: "" or "items[3].".
	prefix string
	line   int
	// object is nil when there is a fault.
	object metav1.Object
	faults []fault
	// foreign is set for a kind of another API, which no object of ours can have been before.
	foreign bool
}

// fault is a problem whose file is not known yet.
type fault struct {
	line    int
	field   string
	reason  problem.Reason
	message string
}

// parser makes documents out of texts.
type parser struct {
	validator *schema.Validator
}

// parseAll parses documents on all processors.
func (p *parser) parseAll(ctx context.Context, docs []*document) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(docs)) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(docs) {
					return
				}
				p.parse(ctx, docs[i])
			}
		})
	}
	wg.Wait()
}

// parse fills in the document. The parsers beneath are not ours: should one of them panic on some text, that text alone is set aside.
func (p *parser) parse(ctx context.Context, d *document) {
	defer func() {
		if r := recover(); r != nil {
			d.entries, d.anonymous = nil, true
			d.fail(&entry{line: 1}, fault{line: 1, reason: problem.Unparsable, message: fmt.Sprintf("parser failed: %v", r)})
		}
	}()
	text := []byte(d.key.text)
	raw, err := manifest.Decode(text, d.key.json)
	e := &entry{line: firstLine(text)}
	if err != nil {
		f := fault{line: e.line, reason: problem.Unparsable, message: err.Error()}
		if at, ok := errors.AsType[*manifest.Error](err); ok {
			f.message = at.Message
			if at.Line > 0 {
				f.line = at.Line
			}
		}
		if raw != nil { // a key stands twice: the object can be named
			e.ref = p.ref(schema.ParseHeader(raw))
		}
		d.fail(e, f)
		return
	}
	p.add(ctx, d, e, raw)
}

// fail adds an entry with a fault.
func (d *document) fail(e *entry, f fault) {
	e.faults = append(e.faults, f)
	d.anonymous = d.anonymous || e.ref.Name == ""
	d.entries = append(d.entries, e)
}

// add adds the object that raw holds, or the objects when it is a List.
func (p *parser) add(ctx context.Context, d *document, e *entry, raw []byte) {
	raw = bytes.TrimSpace(raw)
	if bytes.Equal(raw, []byte("null")) {
		return
	}
	if len(raw) == 0 || raw[0] != '{' {
		d.fail(e, fault{line: e.line, reason: problem.Unparsable, message: "document is not an object; every document needs apiVersion, kind and metadata"})
		return
	}
	h := schema.ParseHeader(raw)
	e.ref = p.ref(h)
	switch {
	case h.Kind == "":
		d.fail(e, fault{line: e.line, field: "kind", reason: problem.Unparsable, message: "Object 'Kind' is missing; every document needs apiVersion and kind"})
	case h.APIVersion == "":
		d.fail(e, fault{line: e.line, field: "apiVersion", reason: problem.Unparsable, message: "Object 'apiVersion' is missing; every document needs apiVersion and kind"})
	case strings.HasSuffix(h.Kind, "List"):
		p.addList(ctx, d, e, h, raw)
	default:
		p.addObject(ctx, d, e, h, raw)
	}
}

// addList adds the items of a List, or of a typed list such as HTTPRouteList, whose items may leave out their kind.
func (p *parser) addList(ctx context.Context, d *document, e *entry, h schema.Header, raw []byte) {
	var list struct{ Items []json.RawMessage }
	if err := json.Unmarshal(raw, &list); err != nil {
		d.fail(e, fault{line: e.line, field: "items", reason: problem.Unparsable, message: "items of the list is not a list"})
		return
	}
	lines := manifest.ReadLines([]byte(d.key.text), d.key.json)
	for i, item := range list.Items {
		path := fmt.Sprintf("%sitems[%d]", e.prefix, i)
		if typed := strings.TrimSuffix(h.Kind, "List"); typed != "" {
			item = withKind(item, h.APIVersion, typed)
		}
		p.add(ctx, d, &entry{prefix: path + ".", line: max(lines.Line(path), 1)}, item)
	}
}

// withKind gives an item of a typed list the kind that the list implies.
func withKind(item []byte, apiVersion, kind string) []byte {
	have := schema.ParseHeader(item)
	if have.Kind != "" || have.APIVersion != "" {
		return item
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(item, &fields) != nil || fields == nil {
		return item
	}
	fields["apiVersion"], _ = json.Marshal(apiVersion) // a string always marshals
	fields["kind"], _ = json.Marshal(kind)
	out, err := json.Marshal(fields)
	if err != nil {
		return item
	}
	return out
}

func (p *parser) addObject(ctx context.Context, d *document, e *entry, h schema.Header, raw []byte) {
	support, reason := p.validator.Lookup(h)
	if support == schema.Ignored {
		return
	}
	if support == schema.Unknown {
		e.foreign = !p.validator.Known(h)
		e.faults = []fault{{line: p.line(d, e, "kind"), field: "kind", reason: problem.UnknownKind, message: reason}}
		d.anonymous = d.anonymous || e.ref.Name == "" // perhaps a kind that is not written to its end
		d.entries = append(d.entries, e)
		return
	}
	object, errs := p.validator.Validate(ctx, h, raw)
	if len(errs) > 0 {
		lines := manifest.ReadLines([]byte(d.key.text), d.key.json)
		for _, err := range errs {
			e.faults = append(e.faults, fault{line: max(lines.Line(e.prefix+err.Field), e.line), field: err.Field,
				reason: problem.SchemaInvalid, message: err.Message})
		}
	}
	if support == schema.Unserved {
		d.fail(e, fault{line: p.line(d, e, "kind"), field: "kind", reason: problem.UnknownKind, message: reason})
		return
	}
	e.object = object
	d.anonymous = d.anonymous || e.ref.Name == ""
	d.entries = append(d.entries, e)
}

func (p *parser) line(d *document, e *entry, field string) int {
	return max(manifest.Line([]byte(d.key.text), d.key.json, e.prefix+field), e.line)
}

// ref names the object as it will be named once it is complete.
func (p *parser) ref(h schema.Header) Ref {
	namespaced := p.validator.Namespaced(h)
	switch {
	case !namespaced:
		h.Namespace = ""
	case h.Namespace == "":
		h.Namespace = metav1.NamespaceDefault
	}
	return Ref{Kind: h.Kind, Namespace: h.Namespace, Name: h.Name}
}

// firstLine is the line of the first content, past comments.
func firstLine(text []byte) int {
	line := 1
	for l := range bytes.Lines(text) {
		l = bytes.TrimSpace(l)
		if len(l) > 0 && l[0] != '#' && l[0] != '%' && !bytes.Equal(l, []byte("---")) {
			break
		}
		line++
	}
	return line
}
