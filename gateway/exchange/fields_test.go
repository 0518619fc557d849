package exchange

import (
	"slices"
	"strings"
	"testing"
	"unsafe"
)

func fieldsOf(pairs ...string) Fields {
	var f Fields
	for i := 0; i < len(pairs); i += 2 {
		f.Add(pairs[i], pairs[i+1])
	}
	return f
}

// lines writes fields as on the wire, for comparing.
func lines(f Fields) string {
	var b strings.Builder
	for _, line := range f {
		b.WriteString(line.Name + ": " + line.Value + "\n")
	}
	return b.String()
}

func TestFieldsSet(t *testing.T) {
	tests := map[string]struct {
		have  Fields
		name  string
		value string
		want  string
	}{
		"to an empty list":            {name: "Host", value: "a", want: "Host: a\n"},
		"appends":                     {have: fieldsOf("A", "1"), name: "B", value: "2", want: "A: 1\nB: 2\n"},
		"replaces in place":           {have: fieldsOf("A", "1", "b", "2", "C", "3"), name: "B", value: "9", want: "A: 1\nB: 9\nC: 3\n"},
		"known name, any case":        {have: fieldsOf("vary", "1", "C", "3"), name: "VARY", value: "9", want: "VARY: 9\nC: 3\n"},
		"the first of several stays":  {have: fieldsOf("A", "1", "b", "2", "a", "3", "C", "4", "A", "5"), name: "a", value: "9", want: "a: 9\nb: 2\nC: 4\n"},
		"the first of several, known": {have: fieldsOf("Via", "1", "x", "2", "via", "3"), name: "via", value: "9", want: "via: 9\nx: 2\n"},
		"a prefix is another name":    {have: fieldsOf("abc", "1"), name: "ab", value: "2", want: "abc: 1\nab: 2\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.have.Set(tt.name, tt.value)
			if got := lines(tt.have); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

func TestFieldsLookup(t *testing.T) {
	f := fieldsOf("Accept-Encoding", "gzip", "X-A", "1", "x-a", "2", "Via", "a", "Cookie", "a=1", "X-A", "3", "cookie", "b=2", "via", "b", "X-Empty", "")
	tests := map[string]struct {
		want string
		ok   bool
	}{
		"accept-encoding": {"gzip", true},
		"x-A":             {"1, 2, 3", true},
		"VIA":             {"a, b", true},
		"COOKIE":          {"a=1; b=2", true},
		"x-empty":         {"", true},
		"x-none":          {"", false},
		"host":            {"", false},
		"":                {"", false},
	}
	for name, tt := range tests {
		if got, ok := f.Lookup(name); got != tt.want || ok != tt.ok {
			t.Errorf("Lookup(%q) = %q, %v; want %q, %v", name, got, ok, tt.want, tt.ok)
		}
	}
	if got, ok := Fields(nil).Lookup("via"); got != "" || ok {
		t.Errorf("Lookup in nothing = %q, %v", got, ok)
	}
}

func TestFieldsDel(t *testing.T) {
	f := fieldsOf("A", "1", "Via", "2", "a", "3", "VIA", "4", "B", "5")
	backing := f
	f.DelID(Via)
	if got, want := lines(f), "A: 1\na: 3\nB: 5\n"; got != want {
		t.Errorf("DelID: got\n%swant\n%s", got, want)
	}
	f.Del("a")
	f.Del("not-there")
	if got, want := lines(f), "B: 5\n"; got != want {
		t.Errorf("Del: got\n%swant\n%s", got, want)
	}
	// What fell out must not keep the connection's buffer alive, nor come back by an append.
	for i := len(f); i < len(backing); i++ {
		if backing[i] != (Field{}) {
			t.Errorf("place %d still holds %v", i, backing[i])
		}
	}
	var none Fields
	none.Del("a")
	none.DelID(Host)
	if len(none) != 0 {
		t.Errorf("nothing became %v", none)
	}
}

func TestFieldsCloneIsIndependent(t *testing.T) {
	f := fieldsOf("A", "1", "B", "2")
	c := f.Clone()
	c.Set("A", "9")
	c.Add("C", "3")
	f.Add("D", "4")
	if got, want := lines(f), "A: 1\nB: 2\nD: 4\n"; got != want {
		t.Errorf("the original became\n%s", got)
	}
	if got, want := lines(c), "A: 9\nB: 2\nC: 3\n"; got != want {
		t.Errorf("the copy is\n%s", got)
	}
	if Fields(nil).Clone() != nil {
		t.Error("the copy of nil is not nil")
	}
}

func TestFieldsHasToken(t *testing.T) {
	f := fieldsOf("Connection", "keep-alive,\tUpgrade , x", "TE", "", "connection", "close", "Upgrade", "websocketX")
	tests := map[string]struct {
		id    ID
		token string
		want  bool
	}{
		"first":        {Connection, "Keep-Alive", true},
		"with blanks":  {Connection, "upgrade", true},
		"second line":  {Connection, "close", true},
		"part of one":  {Connection, "keep", false},
		"another name": {TE, "close", false},
		"longer":       {Upgrade, "websocket", false},
		"absent field": {Vary, "origin", false},
	}
	for name, tt := range tests {
		if got := f.HasToken(tt.id, tt.token); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// FuzzFields runs a program of Add, Set, Del and DelID against a plain list of pairs. Each instruction is three bytes: operation,
// name, value.
func FuzzFields(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 'a', 0, 1, 'b', 1, 0, 'c', 2, 1, 0})
	f.Add([]byte{0, 2, 'a', 0, 3, 'b', 0, 2, 'c', 1, 3, 'd', 3, 2, 0})
	f.Add([]byte{0, 4, 1, 0, 5, 2, 0, 4, 3, 0, 6, 4, 1, 5, 5, 2, 6, 6})
	names := []string{"x-a", "X-A", "via", "VIA", "X-Forwarded-For", "x-forwarded-for", "X-Forwarded-Foo", "", "host"}
	type pair struct{ name, value string }
	f.Fuzz(func(t *testing.T, program []byte) {
		var got Fields
		var model []pair
		for ; len(program) >= 3; program = program[3:] {
			name, value := names[int(program[1])%len(names)], string(program[2])
			same := func(p pair) bool { return strings.EqualFold(p.name, name) }
			switch program[0] % 4 {
			case 0:
				got.Add(name, value)
				model = append(model, pair{name, value})
			case 1:
				got.Set(name, value)
				at := slices.IndexFunc(model, same)
				if at < 0 {
					model = append(model, pair{name, value})
					break
				}
				model[at] = pair{name, value}
				model = append(model[:at+1], slices.DeleteFunc(model[at+1:], same)...)
			case 2:
				got.Del(name)
				model = slices.DeleteFunc(model, same)
			case 3:
				if id := IDOf(name); id != Unknown {
					got.DelID(id)
					model = slices.DeleteFunc(model, same)
				}
			}
			checkFields(t, got, func(yield func(name, value string) bool) {
				for _, p := range model {
					if !yield(p.name, p.value) {
						return
					}
				}
			})
		}
		for _, name := range names {
			var values []string
			for _, p := range model {
				if strings.EqualFold(p.name, name) {
					values = append(values, p.value)
				}
			}
			if value, ok := got.Lookup(name); ok != (values != nil) || value != strings.Join(values, ", ") {
				t.Fatalf("Lookup(%q) = %q, %v; want %q", name, value, ok, values)
			}
			id := IDOf(name)
			if id == Unknown {
				continue
			}
			if got.Has(id) != (values != nil) || values != nil && got.Get(id) != values[0] || values == nil && got.Get(id) != "" {
				t.Fatalf("%s: Has %v, Get %q; want %q", id, got.Has(id), got.Get(id), values)
			}
		}
	})
}

func checkFields(t *testing.T, got Fields, model func(func(name, value string) bool)) {
	t.Helper()
	i := 0
	for name, value := range model {
		want := Field{Name: name, Value: value, ID: IDOf(name)}
		if i >= len(got) || got[i] != want {
			t.Fatalf("line %d of %v, want %v", i, got, want)
		}
		i++
	}
	if i != len(got) {
		t.Fatalf("%d lines, want %d: %v", len(got), i, got)
	}
}

func TestFieldsReadingDoesNotAllocate(t *testing.T) {
	f := fieldsOf("Host", "a", "X-One", "1", "Via", "1.1 a", "Connection", "close")
	allocs := testing.AllocsPerRun(100, func() {
		_ = f.Get(Via)
		_ = f.Has(Origin)
		_, _ = f.Lookup("x-one")
		_ = f.HasToken(Connection, "upgrade")
		f.Set("x-one", "2")
		f.Del("x-two")
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

// TestCopy: the strings of a copy outlive the buffer that the fields look into.
func TestCopy(t *testing.T) {
	buffer := []byte("X-Onevalue")
	var f Fields
	f.Add(unsafe.String(&buffer[0], 5), unsafe.String(&buffer[5], 5))
	f.AddID(Host, "Host", "a")
	got := f.Copy()
	Poison(buffer)
	copy(buffer, "overwritten")
	if len(got) != 2 || got[0].Name != "X-One" || got[0].Value != "value" || got[1].ID != Host {
		t.Errorf("got %v", got)
	}
	if Fields(nil).Copy() != nil {
		t.Error("a copy of nothing is something")
	}
}
