package section

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

func TestHuffmanAgainstAnother(t *testing.T) {
	var all []byte
	for c := range 256 {
		all = append(all, byte(c))
	}
	texts := []string{"", "0", "www.example.com", "no-cache", string(all), strings.Repeat("\x00\xff\r", 50), strings.Repeat("a", 1000)}
	for c := range 256 {
		for n := range 9 {
			texts = append(texts, strings.Repeat(string([]byte{byte(c)}), n)+"e")
		}
	}
	for _, text := range texts {
		got, ok := AppendHuffman([]byte("before "), hpack.AppendHuffmanString(nil, text))
		if !ok || string(got) != "before "+text {
			t.Fatalf("%q became %q, %v", text, got, ok)
		}
	}
}

func TestHuffmanRefuses(t *testing.T) {
	for name, coded := range map[string][]byte{
		"end of string":        {0xff, 0xff, 0xff, 0xff},
		"end of string within": {0x07, 0xff, 0xff, 0xff, 0xfc, 0x1f, 0xff, 0xff, 0xff},
		"eight bits of ones":   {0x1f, 0xff}, // 'a', then 11 ones
		"padding of zeros":     {0x18},       // 'a', then 000
		"a whole byte of ones": {0xff},
	} {
		t.Run(name, func(t *testing.T) {
			if got, ok := AppendHuffman(nil, coded); ok {
				t.Errorf("it is %q", got)
			}
		})
	}
}

// FuzzHuffman holds the Huffman code against x/net's.
func FuzzHuffman(f *testing.F) {
	f.Add([]byte("www.example.com"), []byte{0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff})
	var all []byte
	for c := range 256 {
		all = append(all, byte(c))
	}
	f.Add(all, []byte{0xff, 0xff, 0xff, 0xfc})
	f.Add([]byte{}, []byte{0xff})
	f.Fuzz(func(t *testing.T, text, packed []byte) {
		encoded := hpack.AppendHuffmanString(nil, string(text))
		got, ok := AppendHuffman(make([]byte, 0, HuffmanRoom(len(encoded))), encoded)
		if !ok || !bytes.Equal(got, text) {
			t.Errorf("%q became %q, %v", text, got, ok)
		}
		want, err := hpack.HuffmanDecodeToString(packed)
		room := make([]byte, 0, HuffmanRoom(len(packed)))
		got, ok = AppendHuffman(room, packed)
		if ok != (err == nil) || ok && string(got) != want {
			t.Errorf("%x is %q, %v, want %q, %v", packed, got, ok, want, err)
		}
		if cap(got) != cap(room) {
			t.Errorf("%d bytes became %d: the room is too small", len(packed), len(got))
		}
	})
}
