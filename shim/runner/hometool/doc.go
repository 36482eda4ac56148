// Package hometool knows tools that people install into their homes, and of each what a sandbox needs to run it.
//
// A home is not shown to an agent, and what a tool has in it lies beside credentials: cargo's registry token in ~/.cargo, npm's in the
// etc/npmrc of a Node.js version. So a [Tool] lists what comes along, with reasons, and all else stays behind, unknown or not. [Find] looks
// for what is listed in one home; it only reads. Whoever shows it does so read-only, each part at its own place, so that what a tool has
// written down of its own place holds.
//
// # Links
//
// The folder of a tool may be a link, or lie behind one: people keep large things on other disks. A part of it may not lead out of the
// tool's folders: what is elsewhere in the home is nobody's to show. [Find] leaves such a part out and names it. Links deeper inside need no
// thought: they are followed in the sandbox, where they lead nowhere unless their target is shown too.
package hometool
