package attack

import (
	"strconv"
	"strings"
)

// Pieces that are none, but tell the probe what to do.
const (
	hear  = "@hear" // reads an answer
	each  = "@each" // sends the next piece byte by byte
	keep  = "@keep" // does not end the sending
	pause = "@20ms"
)

// wire returns the words that send pieces on a connection to addr.
func wire(addr string, pieces ...string) string { return sent("wire "+addr, pieces) }

// datagram returns the words that send one by UDP.
func datagram(addr, payload string) string { return sent("udp-wire "+addr, []string{payload}) }

func sent(words string, pieces []string) string {
	for _, p := range pieces {
		switch p {
		case hear, each, keep, pause:
		default:
			p = strconv.QuoteToASCII(p)
			p = p[1 : len(p)-1]
			p = strings.NewReplacer(" ", `\x20`, "@", `\x40`).Replace(p)
		}
		words += " " + p
	}
	return words
}

// lines writes text in which a dollar sign ends a line.
func lines(text string) string { return strings.ReplaceAll(text, "$", "\r\n") }

// vector writes content behind its length (RFC 8446, 3.4), which has size bytes.
func vector(size int, content ...string) string {
	all := strings.Join(content, "")
	return number(size, len(all)) + all
}

// number writes n in size bytes, the highest first.
func number(size, n int) string {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(n >> (8 * (size - 1 - i)))
	}
	return string(b)
}
