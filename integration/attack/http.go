package attack

import (
	"fmt"
	"strings"
)

// good are the names that the policy allows by TLS and HTTP.
var good = []string{"good.test"}

// hidden is a request for somebody else.
const hidden = "GET /hidden HTTP/1.1$Host: evil.test$$"

// hiddenLength is the length of it in bytes.
var hiddenLength = len(lines(hidden))

// requests are ways to get an HTTP request past the proxy that it would not allow: two readers of the same bytes find different ones. The sinks are the
// second reader, in all ways that careless servers are known for.
var requests = []Attack{
	refusedRequest("two-framings", "end a body in two places: Content-Length and Transfer-Encoding", smuggling, fmt.Sprintf("Content-Length: %d$Transfer-Encoding: chunked$$0$$%s", hiddenLength+5, hidden)),
	refusedRequest("two-framings-chunk", "end a body in two places: Transfer-Encoding and Content-Length", smuggling, fmt.Sprintf("Transfer-Encoding: chunked$Content-Length: 4$$%x$%s$0$$", hiddenLength, hidden)),
	coded("te-space", "Transfer-Encoding : chunked"),
	coded("te-tab", "Transfer-Encoding\t:\tchunked"),
	coded("te-vertical-tab", "Transfer-Encoding: \x0bchunked"),
	coded("te-list", "Transfer-Encoding: identity, chunked"),
	coded("te-twice", "Transfer-Encoding: chunked$Transfer-Encoding: x"),
	coded("te-quoted", `Transfer-Encoding: "chunked"`),
	coded("te-parameter", "Transfer-Encoding: chunked;q=1"),
	coded("te-unknown", "Transfer-Encoding: xchunked"),
	coded("te-case", "tRANSFER-eNCODING: cHUNKED"),
	coded("te-underscore", "Transfer_Encoding: chunked"),
	coded("te-dot", "Transfer.Encoding: chunked"),
	coded("te-tilde", "Transfer~Encoding: chunked"),
	coded("te-folded", "Transfer-Encoding:$ chunked"),
	coded("te-hidden-fold", "X: y$ Transfer-Encoding: chunked"),
	coded("te-nul", "Transfer-Encoding: chunked\x00"),
	coded("te-bare-lf", "X: y\nTransfer-Encoding: chunked"),
	coded("te-bare-cr", "X: y\rTransfer-Encoding: chunked"),
	coded("te-high-byte", "Transfer-Encoding\xa0: chunked"),

	refusedRequest("cl-twice", "give two lengths", smuggling, fmt.Sprintf("Content-Length: 0$Content-Length: %d$$%s", hiddenLength, hidden)),
	refusedRequest("cl-twice-last", "give two lengths, the lower one last", smuggling, fmt.Sprintf("Content-Length: %d$Content-Length: 0$$%s", hiddenLength, hidden)),
	refusedRequest("cl-list", "give a list of lengths", smuggling, fmt.Sprintf("Content-Length: %d, 0$$%s", hiddenLength, hidden)),
	refusedRequest("cl-sign", "give a length with a sign", smuggling, fmt.Sprintf("Content-Length: +%d$$%s", hiddenLength, hidden)),
	refusedRequest("cl-hex", "give a length in hexadecimal", smuggling, fmt.Sprintf("Content-Length: %#x$$%s", hiddenLength, hidden)),
	refusedRequest("cl-overflow", "give a length that overflows", smuggling, fmt.Sprintf("Content-Length: 1844674407370955161%d$$%s", 6+hiddenLength/10, hidden)),
	refusedRequest("cl-space", "give a length with a space in it", smuggling, fmt.Sprintf("Content-Length: 0 %d$$%s", hiddenLength, hidden)),
	refusedRequest("cl-negative", "give a negative length", smuggling, "Content-Length: -1$$"+hidden),
	refusedRequest("connection-length", "have the next hop forget the length", "RFC 9110, 7.6.1", fmt.Sprintf("Connection: Content-Length$Content-Length: %d$$%s", hiddenLength, hidden)),
	refusedRequest("connection-coding", "have the next hop forget the coding", "RFC 9110, 7.6.1", fmt.Sprintf("Connection: Transfer-Encoding$Transfer-Encoding: chunked$Content-Length: 0$$%x$%s$0$$", hiddenLength, hidden)),

	chunked("sign", "give the size of a chunk a sign", "+0$$"),
	chunked("hex", "give the size of a chunk a prefix", "0x0$$"),
	chunked("space", "put a space behind the size of a chunk", "0 $$"),
	chunked("overflow", "give the size of a chunk more digits than fit", fmt.Sprintf("10000000000000000%x$$", 0)),
	chunked("negative", "give a chunk a negative size", "-1$$"),
	chunked("bare-lf", "end the lines of chunks with a line feed alone", "4\nbody\n0\n\n"),
	chunked("extension-lf", "hide the end of a chunk in an extension", "0;\n\n"),
	chunked("end", "end a chunk with other bytes", "4$bodyXX0$$"),
	chunked("trailer", "hide a request in a trailer", "0$"),
	{
		ID: "http.trailer-host", Tries: "give the host in a trailer", Wall: Network, Invariant: "I2", Source: "RFC 9110, 6.5.1",
		Try: wire("good.test:80", lines("POST / HTTP/1.1$Host: good.test$Transfer-Encoding: chunked$$0$Host: evil.test$$")), Down: Outside, Shows: Internet, Within: good,
	},
	chunked("whole", "send a request behind the last chunk", "0$$"),

	refusedRequest("host-twice", "give two hosts", "RFC 9112, 3.2", "Host: evil.test$$"),
	refusedRequest("host-folded", "fold a host below another one", "RFC 9112, 5.2", " evil.test$Host : evil.test$$"),
	refusedRequest("host-bare-cr", "hide a host behind a bare carriage return", "RFC 9112, 2.2", "X: y\rHost: evil.test$$"),
	refusedRequest("host-nul", "hide a host behind a NUL", "RFC 9110, 5.5", "X: \x00$Host: evil.test$$"),
	hosted("absolute", "give another host in the target", "GET http://evil.test/ HTTP/1.1$Host: good.test$$"),
	hosted("absolute-upper", "give another host in the target, in upper case", "GET HTTP://EVIL.TEST/ HTTP/1.1$Host: good.test$$"),
	hosted("absolute-https", "give another scheme and host in the target", "GET https://evil.test/ HTTP/1.1$Host: good.test$$"),
	hosted("absolute-user", "give the allowed host as a user of another one", "GET http://good.test@evil.test/ HTTP/1.1$Host: good.test$$"),
	hosted("absolute-backslash", "hide another host behind a backslash", `GET http://evil.test\@good.test/ HTTP/1.1$Host: good.test$$`),
	hosted("absolute-escape", "write the host of the target in escapes", "GET http://%65vil.evil.test/ HTTP/1.1$Host: good.test$$"),
	{
		ID: "http.absolute-good", Tries: "send another Host with an allowed target", Wall: Network, Invariant: "I2", Source: "RFC 9112, 3.2.2",
		Try: wire("good.test:80", lines("GET http://good.test/ HTTP/1.1$Host: evil.test$$")), Down: Outside, Shows: Internet, Within: good,
	},
	hosted("host-port", "give another host with a port", "GET / HTTP/1.1$Host: evil.test:80$$"),
	hosted("host-upper", "give another host in upper case", "GET / HTTP/1.1$Host: EVIL.TEST$$"),
	hosted("host-dot", "give another host with a dot at its end", "GET / HTTP/1.1$Host: evil.test.$$"),
	hosted("host-user", "give the allowed host as a user of another one", "GET / HTTP/1.1$Host: good.test@evil.test$$"),
	hosted("host-port-user", "give the allowed host and port as a user of another one", "GET / HTTP/1.1$Host: good.test:80@evil.test$$"),
	hosted("host-list", "give a list of hosts", "GET / HTTP/1.1$Host: good.test, evil.test$$"),
	hosted("host-space", "give two hosts with a space between", "GET / HTTP/1.1$Host: good.test evil.test$$"),
	hosted("host-fragment", "hide the allowed host in a fragment", "GET / HTTP/1.1$Host: evil.test#good.test$$"),
	hosted("host-path", "hide the allowed host in a path", "GET / HTTP/1.1$Host: evil.test/good.test$$"),
	hosted("host-brackets", "give a host in brackets", "GET / HTTP/1.1$Host: [evil.test]$$"),
	hosted("host-escape", "hide a host behind an escaped NUL", "GET / HTTP/1.1$Host: evil.test%00.good.test$$"),
	hosted("host-forwarded", "tell the allowed host in other fields", "GET / HTTP/1.1$X-Forwarded-Host: good.test$Forwarded: host=good.test$X-Host: good.test$Host: evil.test$$"),
	hosted("host-last", "give a host behind a long head", "GET / HTTP/1.1$X: "+strings.Repeat("x", 12<<10)+"$Host: evil.test$$"),
	hosted("host-empty-lines", "give a host behind empty lines", "$$GET / HTTP/1.1$Host: evil.test$$"),
	hosted("method-lower", "give another host with a method in lower case", "get / HTTP/1.1$Host: evil.test$$"),
	hosted("line-tabs", "write a request line with tabs", "GET\t/\tHTTP/1.1$Host: evil.test$$"),
	hosted("line-spaces", "write a request line with more spaces", "GET  /  HTTP/1.1$Host: evil.test$$"),
	hosted("line-bare-lf", "end lines with a line feed alone", "GET / HTTP/1.1\nHost: evil.test\n\n"),
	hosted("no-host", "send no host", "GET / HTTP/1.0$$"),
	hosted("old", "use HTTP/0.9", "GET /evil.test$"),
	hosted("version-2", "use HTTP/2 without TLS", "PRI * HTTP/2.0$$SM$$\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
	hosted("proxy-header", "send a header of the PROXY protocol first", "PROXY TCP4 45.67.89.10 45.67.89.66 1 80$GET / HTTP/1.1$Host: evil.test$$"),
	hosted("proxy-header-2", "send a binary header of the PROXY protocol first", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x2d\x43\x59\x0a\x2d\x43\x59\x42\x00\x01\x00\x50GET / HTTP/1.1$Host: evil.test$$"),
	{
		ID: "http.tls", Tries: "speak TLS to an HTTP port", Wall: Network, Invariant: "I2", Source: "RFC 8446",
		Try: wire("good.test:80", record(hello(serverName("good.test")))), Down: Outside, Shows: Internet,
	},
	{
		ID: "http.bytes", Tries: "give another host byte by byte", Wall: Network, Invariant: "I2", Source: "RFC 9293",
		Try: wire("good.test:80", each, lines("GET / HTTP/1.1$Host: evil.test$$")), Down: Outside, Shows: Internet,
	},
	{
		ID: "http.long", Tries: "give a second host behind more than a proxy reads", Wall: Network, Invariant: "I2", Source: smuggling,
		Try: wire("good.test:80", lines("GET / HTTP/1.1$Host: good.test$X: "+strings.Repeat("x", 40<<10)+"$Host: evil.test$$")), Down: Outside, Shows: Internet,
	},
	{
		ID: "http.fields", Tries: "give a second host behind more fields than a proxy reads", Wall: Network, Invariant: "I2", Source: smuggling,
		Try: wire("good.test:80", lines("GET / HTTP/1.1$Host: good.test$"+strings.Repeat("X: y$", 2000)+"Host: evil.test$$")), Down: Outside, Shows: Internet,
	},

	following("pipelined", "send the next request for another host at once", "GET / HTTP/1.1$Host: good.test$$"+hidden),
	following("pipelined-deep", "send a request for another host behind ten", strings.Repeat("GET / HTTP/1.1$Host: good.test$$", 10)+hidden),
	following("get-body", "have the body of a GET taken for the next request", fmt.Sprintf("GET / HTTP/1.1$Host: good.test$Content-Length: %d$$%s", hiddenLength, hidden)),
	following("options-body", "have the body of OPTIONS taken for the next request", fmt.Sprintf("OPTIONS / HTTP/1.1$Host: good.test$Content-Length: %d$$%s", hiddenLength, hidden)),
	following("get-body-late", "have the body of a GET taken for the next request, behind a request for the end", fmt.Sprintf("GET / HTTP/1.1$Host: good.test$Connection: keep-alive, TE$TE: trailers$Content-Length: %d$$%s", hiddenLength, hidden)),
	following("no-length", "send a POST without a length", "POST / HTTP/1.1$Host: good.test$$"+hidden),
	following("head-body", "send a HEAD with a length of nothing", "HEAD / HTTP/1.1$Host: good.test$Content-Length: 0$$"+hidden),
	following("expect", "wait for leave to send another request as a body", fmt.Sprintf("POST / HTTP/1.1$Host: good.test$Expect: 100-continue$Content-Length: %d$$%[2]s%[2]s", hiddenLength, hidden)),
	following("expect-nothing", "expect leave to send nothing", "POST / HTTP/1.1$Host: good.test$Expect: 100-continue$$"+hidden),
	following("websocket", "have the bytes behind a websocket unread", "GET / HTTP/1.1$Host: good.test$Connection: Upgrade$Upgrade: websocket$Sec-WebSocket-Version: 13$Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==$$"+hidden),
	following("websocket-refused", "have the bytes behind a websocket unread that the server refuses", "GET / HTTP/1.1$Host: good.test$Connection: Upgrade$Upgrade: websocket$Sec-WebSocket-Version: 1337$Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==$$"+hidden),
	following("h2c", "change to HTTP/2 without TLS", "GET / HTTP/1.1$Host: good.test$Connection: Upgrade, HTTP2-Settings$Upgrade: h2c$HTTP2-Settings: AAMAAABkAAQAAP__$$"+hidden),
	following("upgrade-tls", "change to TLS within HTTP", "OPTIONS * HTTP/1.1$Host: good.test$Connection: Upgrade$Upgrade: TLS/1.0$$"+hidden),
	following("connect", "ask an HTTP server for a tunnel", "CONNECT good.test:80 HTTP/1.1$Host: good.test:80$$"+hidden),
	following("close", "go on after the end was announced", "GET / HTTP/1.1$Host: good.test$Connection: close$$"+hidden),
	{
		ID: "http.kept", Tries: "use a connection that is kept for another host", Wall: Network, Invariant: "I2", Source: "RFC 9112, 9.3",
		Try: wire("good.test:80", lines("GET / HTTP/1.1$Host: good.test$$"), hear, lines(hidden)), Down: Outside, Shows: Internet, Within: good,
	},
	{
		ID: "http.chunks-late", Tries: "send a malformed chunk when the head has left", Wall: Network, Invariant: "I2", Source: smuggling,
		Try:  wire("good.test:80", lines("POST / HTTP/1.1$Host: good.test$Transfer-Encoding: chunked$$4$body$"), pause, lines("+0$$"+hidden)),
		Down: Outside, Shows: Internet, Within: good,
	},
	{
		ID: "http.websocket-late", Tries: "use a connection for another host that asked for a websocket", Wall: Network, Invariant: "I2", Source: "RFC 6455, 4.2.2",
		Try:  wire("good.test:80", lines("GET / HTTP/1.1$Host: good.test$Connection: Upgrade$Upgrade: websocket$Sec-WebSocket-Version: 13$Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==$$"), hear, lines(hidden)),
		Down: Outside, Shows: Internet, Within: good,
	},
}

const smuggling = "RFC 9112, 11.2"

// refusedRequest is a POST to good.test that nobody may pass on; rest is what follows its Host.
func refusedRequest(id, tries, source, rest string) Attack {
	return Attack{
		ID: "http." + id, Tries: tries, Wall: Network, Invariant: "I2", Source: source,
		Try: wire("good.test:80", lines("POST / HTTP/1.1$Host: good.test$"+rest)), Down: Outside, Shows: Internet,
	}
}

// coded is a POST whose coding some see, and some do not.
func coded(id, field string) Attack {
	return refusedRequest(id, fmt.Sprintf("hide a coding: %q", field), smuggling, fmt.Sprintf("%s$Content-Length: %d$$0$$%s", field, hiddenLength+5, hidden))
}

// chunked is a POST whose body ends in what is given, or goes on. Of some the head may have left before it is known.
func chunked(id, tries, end string) Attack {
	a := refusedRequest("chunk-"+id, tries, smuggling, "Transfer-Encoding: chunked$$"+end+hidden)
	a.Within = good
	return a
}

// hosted is a request for another host than the one that was connected to.
func hosted(id, tries, text string) Attack {
	return Attack{
		ID: "http." + id, Tries: tries, Wall: Network, Invariant: "I2", Source: "RFC 9110, 7.2",
		Try: wire("good.test:80", lines(text)), Down: Outside, Shows: Internet,
	}
}

// following is a request that is allowed, and one that is not behind it.
func following(id, tries, text string) Attack {
	a := hosted(id, tries, text)
	a.Source, a.Within = "RFC 9112, 9.3", good
	return a
}
