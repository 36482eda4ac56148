package lab

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestCarelessHTTP has a request for somebody else hidden in one for good.test.
func TestCarelessHTTP(t *testing.T) {
	const evil = "GET / HTTP/1.1$Host: evil.test$$"
	size := len(strings.ReplaceAll(evil, "$", "\r\n"))
	found := []string{"a request for evil.test"}
	for _, test := range []struct {
		what, text string
		want       []string
	}{
		{"a body", fmt.Sprintf("Content-Length: %d$$%s", size, evil), nil},
		{"chunks", fmt.Sprintf("Transfer-Encoding: chunked$$%x$%s$0$$", size, evil), nil},
		{"a request for the same", "$GET / HTTP/1.1$Host: good.test$X: evil$$", nil},
		{"the next request", "$" + evil, found},
		{"two lengths", fmt.Sprintf("Content-Length: 0$Content-Length: %d$$%s", size, evil), found},
		{"two lengths, the other way", fmt.Sprintf("Content-Length: %d$Content-Length: 0$$%s", size, evil), found},
		{"both framings", fmt.Sprintf("Content-Length: %d$Transfer-Encoding: chunked$$0$$%s", size+5, evil), found},
		{"chunks that are folded", fmt.Sprintf("Transfer-Encoding:$ chunked$Content-Length: %d$$0$$%s", size+5, evil), found},
		{"two hosts", "Host: evil.test$$", found},
		{"a bare carriage return", "X: y\rHost: evil.test$$", found},
	} {
		got := carelessHTTP([]byte(strings.ReplaceAll("POST / HTTP/1.1$Host: good.test$"+test.text, "$", "\r\n")))
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.what, got, test.want)
		}
	}
	body := fmt.Sprintf("GET / HTTP/1.1$Host: good.test$Content-Length: %d$CLOSE$%s", size, evil)
	for closes, want := range map[string][]string{"": found, "Connection: close$": nil} {
		if got := carelessHTTP([]byte(strings.ReplaceAll(strings.ReplaceAll(body, "CLOSE", closes), "$", "\r\n"))); !slices.Equal(got, want) {
			t.Errorf("a body of a GET, %q: got %q, want %q", closes, got, want)
		}
	}
	if got := carelessHTTP([]byte("PRI * HTTP/2.0\r\n\r\n")); len(got) != 1 {
		t.Errorf("HTTP/2: got %q", got)
	}
}
