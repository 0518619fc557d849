package manifest

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
)

// Line returns the line of the text, counted from 1, on which the field stands, or of the nearest field around it that the text has:
// an API server names fields that are missing, too. 0 means that the text does not parse.
//
// The path is as an API server prints it. Keys may hold dots and slashes, so that a path cannot be cut without looking at the
// object: at every level the longest key that the rest of the path starts with is taken.
//
//	spec.rules[0].matches[1].path.value
//	metadata.annotations.example.com/a.b     metadata.annotations[example.com/a.b]     data[tls.crt]
func Line(text []byte, isJSON bool, path string) int { return ReadLines(text, isJSON).Line(path) }

// Lines answers many questions about one text.
type Lines struct{ root *node }

// ReadLines parses the text once for many calls of Line. It holds several times the text's size: do not keep it.
func ReadLines(text []byte, isJSON bool) Lines {
	if isJSON {
		return Lines{jsonTree(text)}
	}
	return Lines{yamlTree(text)}
}

// Line is the function Line for this text.
func (l Lines) Line(path string) int {
	if l.root == nil {
		return 0
	}
	line := l.root.line
	for n := l.root; n != nil && path != ""; {
		n, path = n.child(path)
		if n != nil {
			line = n.line
		}
	}
	return line
}

// node is a value with its place. For a member of a mapping the place is that of its key.
type node struct {
	line  int
	keys  []string // of a mapping
	items []*node  // its values, or the elements of a sequence
	list  bool
}

// child returns the value that the path's next step leads to, and the rest of the path.
func (n *node) child(path string) (*node, string) {
	if n.list {
		index, rest, ok := bracket(path)
		i, err := strconv.Atoi(index)
		if !ok || err != nil || i < 0 || i >= len(n.items) {
			return nil, ""
		}
		return n.items[i], rest
	}
	if key, _, ok := bracket(path); ok {
		path = strings.TrimPrefix(path, "["+key+"]")
		for i, k := range n.keys {
			if k == key {
				return n.items[i], path
			}
		}
		return nil, ""
	}
	path = strings.TrimPrefix(path, ".")
	best := -1
	for i, key := range n.keys {
		rest, ok := strings.CutPrefix(path, key)
		if !ok || key == "" || (rest != "" && rest[0] != '.' && rest[0] != '[') {
			continue
		}
		if best < 0 || len(key) > len(n.keys[best]) {
			best = i
		}
	}
	if best < 0 {
		return nil, ""
	}
	return n.items[best], path[len(n.keys[best]):]
}

// bracket cuts "[index]" off the start of the path.
func bracket(path string) (index, rest string, ok bool) {
	if !strings.HasPrefix(path, "[") {
		return "", path, false
	}
	index, rest, ok = strings.Cut(path[1:], "]")
	return index, rest, ok
}

func yamlTree(text []byte) *node {
	var doc yamlv3.Node
	if yamlv3.Unmarshal(text, &doc) != nil || len(doc.Content) == 0 {
		return nil
	}
	return fromYAML(doc.Content[0], doc.Content[0].Line, 0)
}

// fromYAML follows an alias to its anchor, and keeps the line of the alias: that is where the author of the field looks. Aliases
// are not expanded below the first, which bounds the tree.
func fromYAML(y *yamlv3.Node, line, aliases int) *node {
	if y.Kind == yamlv3.AliasNode {
		if aliases > 0 {
			return &node{line: line}
		}
		return fromYAML(y.Alias, line, aliases+1)
	}
	n := &node{line: line, list: y.Kind == yamlv3.SequenceNode}
	switch y.Kind {
	case yamlv3.SequenceNode:
		for _, item := range y.Content {
			n.items = append(n.items, fromYAML(item, item.Line, aliases))
		}
	case yamlv3.MappingNode:
		for i := 0; i+1 < len(y.Content); i += 2 {
			n.keys = append(n.keys, y.Content[i].Value)
			n.items = append(n.items, fromYAML(y.Content[i+1], y.Content[i].Line, aliases))
		}
	}
	return n
}

func jsonTree(text []byte) *node {
	if deepest(text) > MaxDepth {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	lines := &lineCounter{text: text}
	token, err := d.Token()
	if err != nil {
		return nil
	}
	return fromJSON(d, lines, token, lines.at(d.InputOffset()))
}

// fromJSON reads the value that starts with the token. A token ends on the line it starts on: JSON strings hold no line break.
func fromJSON(d *json.Decoder, lines *lineCounter, token json.Token, line int) *node {
	n := &node{line: line, list: token == json.Delim('[')}
	if token != json.Delim('{') && !n.list {
		return n
	}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return n
		}
		at := lines.at(d.InputOffset())
		if !n.list {
			n.keys = append(n.keys, token.(string)) // the decoder lets nothing else stand for a key
			if token, err = d.Token(); err != nil {
				n.items = append(n.items, &node{line: at})
				return n
			}
		}
		n.items = append(n.items, fromJSON(d, lines, token, at))
	}
	_, _ = d.Token() // the closing bracket; at the end of a broken text there is none
	return n
}
