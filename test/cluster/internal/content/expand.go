package content

import "strings"

// Expand replaces references to variables in a command, an argument or a variable's value, as container.command of the Pod API says:
//
//	$(NAME)    the variable's value; left as it is if there is none
//	$$(NAME)   the text $(NAME)
//	$$         $
//
// Any other $ stands for itself.
func Expand(text string, variables map[string]string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 || i+1 == len(text) {
			b.WriteString(text)
			return b.String()
		}
		b.WriteString(text[:i])
		text = text[i:]
		switch end := strings.IndexByte(text, ')'); {
		case text[1] == '$':
			b.WriteByte('$')
			text = text[2:]
		case text[1] == '(' && end > 0:
			if value, ok := variables[text[2:end]]; ok {
				b.WriteString(value)
			} else {
				b.WriteString(text[:end+1])
			}
			text = text[end+1:]
		default:
			b.WriteByte('$')
			text = text[1:]
		}
	}
}
