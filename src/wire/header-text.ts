/** What may stand in a header value and still be read as text: visible ASCII, space and tab. */
const HEADER_TEXT = /^[\t\x20-\x7e]*$/;

/** True when the text can be sent as a header value and read back by every peer (RFC 9110 5.5). */
export function isHeaderText(text: string): boolean {
  return HEADER_TEXT.test(text);
}
