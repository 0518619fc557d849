package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSplit(t *testing.T) {
	tests := map[string]struct {
		file    string
		json    bool
		want    []string // "line:text"
		wantErr string
	}{
		"empty":                   {file: ""},
		"only comments":           {file: "# a\n\n---\n# b\n---\n"},
		"one":                     {file: "a: 1\n", want: []string{"1:a: 1\n"}},
		"two":                     {file: "a: 1\n---\nb: 2\n", want: []string{"1:a: 1\n", "3:b: 2\n"}},
		"leading separator":       {file: "---\na: 1\n", want: []string{"2:a: 1\n"}},
		"comment after separator": {file: "a: 1\n--- # next\nb: 2", want: []string{"1:a: 1\n", "3:b: 2"}},
		"content after separator": {file: "--- {a: 1}\n--- {b: 2}\n", want: []string{"1:--- {a: 1}\n", "2:--- {b: 2}\n"}},
		"crlf":                    {file: "a: 1\r\n---\r\nb: 2\r\n", want: []string{"1:a: 1\r\n", "3:b: 2\r\n"}},
		"directive":               {file: "%YAML 1.1\n---\na: 1\n", want: []string{"3:a: 1\n"}},
		"document end":            {file: "a: 1\n...\n---\nb: 2\n", want: []string{"1:a: 1\n", "4:b: 2\n"}},
		"not separators":          {file: "a: |\n  ---\n  x\n----: 1\n---a: 2\n", want: []string{"1:a: |\n  ---\n  x\n----: 1\n---a: 2\n"}},
		"byte order mark":         {file: "\xef\xbb\xbfa: 1\n", want: []string{"1:a: 1\n"}},
		"json stream":             {file: "{\"a\":1}\n\n{\"b\":2}\n", want: []string{"1:{\"a\":1}", "3:{\"b\":2}"}},
		"json array":              {file: "[\n {\"a\":1},\n {\"b\":2}\n]\n", want: []string{"2:{\"a\":1}", "3:{\"b\":2}"}},
		"flow yaml":               {file: "{a: 1}\n---\n{b: 2}\n", want: []string{"1:{a: 1}\n", "3:{b: 2}\n"}},
		"broken json":             {file: "{\"a\":1}\n{\"b\":\n", json: true, want: []string{"1:{\"a\":1}"}, wantErr: "line 3: json: unexpected EOF"},
		"not utf-8":               {file: "a: 1\nb: \xff\n", wantErr: "line 2: text is not UTF-8; save the file as UTF-8"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			docs, err := Split([]byte(test.file), test.json)
			var got []string
			for _, d := range docs {
				got = append(got, fmt.Sprintf("%d:%s", d.Line, d.Text))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if got := errText(err); got != test.wantErr {
				t.Errorf("error %q, want %q", got, test.wantErr)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestDecode(t *testing.T) {
	laughs := "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		laughs += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 9), ","))
	}
	tests := map[string]struct {
		text, want, wantErr string
		json                bool
	}{
		"yaml":             {text: "a: 1\nb: [x]\n", want: `{"a":1,"b":["x"]}`},
		"yaml 1.1 boolean": {text: "a: on\n", want: `{"a":true}`},
		"alias":            {text: "a: &x {k: v}\nb: *x\n", want: `{"a":{"k":"v"},"b":{"k":"v"}}`},
		"duplicate key":    {text: "a: 1\nb: 2\na: 3\n", want: `{"a":3,"b":2}`, wantErr: `line 3: yaml: key "a" already set in map`},
		"syntax":           {text: "a: 1\nb: [\n", wantErr: "line 2: yaml: did not find expected node content"},
		"laughs":           {text: laughs, wantErr: "line 1: document is too large: its aliases expand to more than 33554432 bytes"},
		"long alias": {text: "a: &a " + strings.Repeat("x", 1<<16) + "\nb: [" + strings.Repeat("*a,", 1<<10) + "]\n",
			wantErr: "line 1: document is too large: its aliases expand to more than 33554432 bytes"},
		"self alias": {text: "a: &a [*a]\n", wantErr: `line 1: alias "a" stands within its own anchor`},
		"deep flow":  {text: strings.Repeat("[", 300) + strings.Repeat("]", 300), wantErr: "line 1: nested deeper than 256 levels"},
		"deep block": {text: strings.Repeat("- ", 300) + "x\n", wantErr: "line 1: nested deeper than 256 levels"},
		"json":       {text: `{"a":1}`, json: true, want: `{"a":1}`},
		"deep json":  {text: strings.Repeat("[", 300) + strings.Repeat("]", 300), json: true, wantErr: "nested deeper than 256 levels"},
		"bad json":   {text: "{\n\"a\" 1}", json: true, wantErr: "line 2: json: invalid character '1' after object key"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Decode([]byte(test.text), test.json)
			if string(got) != test.want || errText(err) != test.wantErr {
				t.Errorf("got %s, %q; want %s, %q", got, errText(err), test.want, test.wantErr)
			}
		})
	}
}

const placed = `# a route
kind: HTTPRoute
metadata:
  annotations:
    example.com/a.b: x
    example.com/a: y
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: []
  - matches:
    - path:
        type: Exact
        value: foo
    filters: &f
    - type: RequestMirror
  - filters: *f
`

const placedJSON = `{
  "kind": "HTTPRoute",
	"metadata": {"annotations": {"example.com/a.b": "x"}},
  "items": [
    {"spec": 1},
    {"spec":
      {"deep": [1,
        2]}}
  ]
}`

func TestLine(t *testing.T) {
	tests := map[string]struct {
		text string
		path string
		want int
	}{
		"root":                  {placed, "", 2},
		"key":                   {placed, "kind", 2},
		"nested":                {placed, "spec.rules[1].matches[0].path.value", 14},
		"item":                  {placed, "spec.rules[1]", 11},
		"missing field":         {placed, "spec.rules[1].matches[0].path.other", 12},
		"missing item":          {placed, "spec.rules[7].matches", 9},
		"missing top":           {placed, "status", 2},
		"dotted key":            {placed, "metadata.annotations.example.com/a.b", 5},
		"shorter dotted key":    {placed, "metadata.annotations.example.com/a", 6},
		"key in brackets":       {placed, "metadata.annotations[example.com/a.b]", 5},
		"flow":                  {placed, "spec.parentRefs[0].name", 8},
		"alias":                 {placed, "spec.rules[2].filters", 17},
		"through an alias":      {placed, "spec.rules[2].filters[0].type", 16},
		"path through a scalar": {placed, "kind.foo[0]", 2},
		"json":                  {placedJSON, "kind", 2},
		"json dotted key":       {placedJSON, "metadata.annotations[example.com/a.b]", 3},
		"json item":             {placedJSON, "items[1].spec.deep[1]", 8},
		"json missing":          {placedJSON, "items[0].spec.deep", 5},
		"broken":                {"a: [", "a", 0},
		"broken json":           {"", "a", 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Line([]byte(test.text), strings.HasPrefix(test.text, "{"), test.path); got != test.want {
				t.Errorf("line %d, want %d", got, test.want)
			}
		})
	}
}

// FuzzSplit checks that documents are views in order, that their lines are right and that none is lost.
func FuzzSplit(f *testing.F) {
	for _, seed := range []string{"a: 1\n---\nb: 2\n", "--- {a: 1}\n...\n", "{\"a\":1}\n[{\"b\":2},3]", "%YAML 1.1\n---\r\na", "\xef\xbb\xbfa", "[", "{}{"} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, file []byte, isJSON bool) {
		docs, _ := Split(file, isJSON)
		file = bytes.TrimPrefix(file, []byte("\xef\xbb\xbf"))
		offset, line := 0, 1
		for _, d := range docs {
			i := bytes.Index(file[offset:], d.Text)
			if i < 0 {
				t.Fatalf("document %q is not in the rest of the file", d.Text)
			}
			for ; line+bytes.Count(file[offset:offset+i], []byte{'\n'}) != d.Line; i++ {
				next := bytes.Index(file[offset+i+1:], d.Text)
				if next < 0 {
					t.Fatalf("document %q does not start on line %d", d.Text, d.Line)
				}
				i += next
			}
			line += bytes.Count(file[offset:offset+i+len(d.Text)], []byte{'\n'})
			offset += i + len(d.Text)
			if d.JSON && !json.Valid(d.Text) {
				t.Fatalf("document %q is not JSON", d.Text)
			}
		}
	})
}

// FuzzDecode checks that whatever decodes is bounded JSON, and that no input is a crash.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{placed, placedJSON, "a: &a [*a]", "a: 1\na: 2", "? {a: b}\n: c", "<<: {a: 1}", "- - - x", "!!binary aGk=", "1: {2: 3}", "a: .inf"} {
		f.Add([]byte(seed), strings.HasPrefix(seed, "{"))
	}
	f.Fuzz(func(t *testing.T, text []byte, isJSON bool) {
		raw, err := Decode(text, isJSON)
		if err == nil && !json.Valid(raw) {
			t.Fatalf("%q decodes to %q", text, raw)
		}
	})
}

// FuzzLine checks that a line is always one of the text.
func FuzzLine(f *testing.F) {
	f.Add([]byte(placed), false, "spec.rules[1].matches[0].path.value")
	f.Add([]byte(placedJSON), true, "items[1].spec.deep[1]")
	f.Add([]byte("a: &a {b: *a}"), false, "a.b.b.b")
	f.Add([]byte("{"), true, "a[")
	f.Fuzz(func(t *testing.T, text []byte, isJSON bool, path string) {
		// YAML also ends lines at a lone CR, NEL, LS and PS.
		breaks := strings.NewReplacer("\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n").Replace(string(text))
		if line := Line(text, isJSON, path); line < 0 || line > 1+strings.Count(breaks, "\n") {
			t.Fatalf("line %d of %q", line, text)
		}
	})
}
