// Package headers changes the fields of a request or a response: Gateway API's RequestHeaderModifier and ResponseHeaderModifier.
package headers

// Config is an HTTPHeaderFilter. A field name, in any case, may stand in it once: in one of the three lists.
type Config struct {
	// Set replaces every line of a field by one, or adds it.
	Set []Field `json:"set,omitempty"`
	// Add adds a line to those of the field.
	Add []Field `json:"add,omitempty"`
	// Remove takes every line of a field away.
	Remove []string `json:"remove,omitempty"`
}

// Field is an HTTPHeader.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}
