// A person with a browser at the pages of a relay in dev mode: by keyboard and by click, with scripts and without, in light and
// dark, on a screen of 320 pixels. Fails at the first thing that is not as it should be.
//
//   RELAY=http://127.0.0.1:8000 DEV_SECRET=... CODE=ABCD-2345 node pages.mjs      CODE: one that `mykube login --device` shows
//
// It asks as a person does, and stays below the relay's limits: five sign-ins and five codes a minute.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import axe from 'axe-core'
import { chromium } from 'playwright-core'

const { RELAY: relay, DEV_SECRET: secret, CODE: code } = process.env
const EMAIL = 'alice@example.com'
// A browser that starts on a busy machine takes its time; nothing here takes this long.
const LIMIT = 60_000

const browser = await chromium.launch({
  executablePath: process.env.MYKUBE_CHROMIUM ?? '/usr/bin/chromium',
  // Chromium's own sandbox wants a user that is not root.
  args: process.getuid() === 0 ? ['--no-sandbox'] : [],
})
try {
  await byKeyboard()
  await withoutScripts()
  console.log('all pages are as they should be')
} finally {
  await browser.close()
}

/** A new browser of a person. What its console says is kept: nothing may be said. */
async function person(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1000, height: 800 }, ...options })
  context.setDefaultTimeout(LIMIT)
  const page = await context.newPage()
  const said = []
  page.on('console', (message) => {
    // What the relay refused is an error of the network to the console; each of these is expected where it is asserted.
    const refused = /^Failed to load resource: the server responded with a status of 4/.test(message.text())
    if (['error', 'warning'].includes(message.type()) && !refused) said.push(message.text())
  })
  page.on('pageerror', (error) => said.push(String(error)))
  return { context, page, said }
}

/** What holds of every page. */
async function check(page, said, title) {
  assert.equal(await page.title(), `${title} - mykube`)
  assert.equal(await page.locator('h1').count(), 1, `${title}: one heading`)
  await page.evaluate(axe.source)
  for (const colorScheme of ['light', 'dark']) {
    for (const reducedMotion of ['no-preference', 'reduce']) {
      await page.emulateMedia({ colorScheme, reducedMotion })
      const { violations, passes } = await page.evaluate(() => globalThis.axe.run())
      const found = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html)}`)
      assert.deepEqual(found, [], `${title}, ${colorScheme}`)
      assert.ok(passes.some(({ id }) => id === 'color-contrast'), `${title}: colours were looked at`)
    }
  }
  const before = page.viewportSize()
  await page.setViewportSize({ width: 320, height: 640 })
  const wide = await page.evaluate(() => document.documentElement.scrollWidth)
  assert.ok(wide <= 320, `${title}: ${wide} pixels of 320`)
  await page.setViewportSize(before)
  await checkKeyboard(page, title)
  assert.deepEqual(said, [], `${title}: the console`)
}

/** Tab reaches all that can be used, in the order in which it stands there, and shows where it is. */
async function checkKeyboard(page, title) {
  const all = await page.evaluate(() => {
    const usable = [...document.querySelectorAll('a[href], button, input:not([type=hidden])')]
    usable.forEach((element, at) => { element.dataset.at = at })
    document.activeElement?.blur()
    return usable.length
  })
  const reached = []
  for (let presses = 0; presses < 2 * all + 4; presses++) {
    await page.keyboard.press('Tab')
    const focus = await page.evaluate(() => {
      const element = document.activeElement
      if (element === document.body) return null
      const { outlineStyle, outlineWidth } = getComputedStyle(element)
      const { left, right, width } = element.getBoundingClientRect()
      const isSeen = width > 0 && left >= 0 && right <= innerWidth
      return { at: Number(element.dataset.at), html: element.outerHTML, outlineStyle, outlineWidth, isSeen }
    })
    if (focus === null) continue
    assert.ok(focus.outlineStyle !== 'none' && parseFloat(focus.outlineWidth) >= 2 && focus.isSeen, `${title}: ${JSON.stringify(focus)}`)
    reached.push(focus.at)
  }
  const first = reached.indexOf(0)
  assert.deepEqual(reached.slice(first, first + all), [...Array(all).keys()], `${title}: the order of Tab`)
}

/** The field with this label says what is wrong with it, to those who do not see it too. */
async function checkError(page, label, text) {
  const field = page.getByLabel(label, { exact: true })
  const { invalid, described } = await field.evaluate((element) => ({
    invalid: element.getAttribute('aria-invalid'),
    described: element.getAttribute('aria-describedby').split(' ').map((id) => document.getElementById(id).textContent).join(' '),
  }))
  assert.equal(invalid, 'true')
  assert.match(described, text)
  assert.ok(await field.evaluate((element) => element === document.activeElement), 'one can type at once')
}

/** Tab until this is where one is, then Enter. */
async function enter(page, role, name) {
  const wanted = page.getByRole(role, { name, exact: true })
  for (let presses = 0; presses < 50; presses++) {
    if (await wanted.evaluate((element) => element === document.activeElement)) {
      await Promise.all([page.waitForEvent('framenavigated'), page.keyboard.press('Enter')])
      return page.waitForLoadState()
    }
    await page.keyboard.press('Tab')
  }
  assert.fail(`Tab does not come to ${name}`)
}

/** Types into the field with this label, which Tab came to. */
async function type(page, label, text) {
  const field = page.getByLabel(label, { exact: true })
  for (let presses = 0; presses < 50 && !(await field.evaluate((element) => element === document.activeElement)); presses++) {
    await page.keyboard.press('Tab')
  }
  await field.evaluate((element) => element.select())
  await page.keyboard.type(text)
}

/** A code of a published daemon. */
async function daemonCode() {
  const answer = await fetch(`${relay}/auth/device`, { method: 'POST', headers: { 'user-agent': 'a <b>daemon</b> & "more"' } })
  return (await answer.json()).userCode
}

async function byKeyboard() {
  const { context, page, said } = await person()
  // Whoever is not signed in comes back to where they wanted to go.
  await page.goto(`${relay}/device`)
  await check(page, said, 'Sign in')
  await type(page, 'Email address', EMAIL)
  await type(page, 'Dev secret', 'wrong')
  await enter(page, 'button', 'Sign in')
  await checkError(page, 'Dev secret', /not the secret/)
  await check(page, said, 'Error: Sign in')
  await type(page, 'Dev secret', secret)
  await enter(page, 'button', 'Sign in')
  assert.equal(page.url(), `${relay}/device`)
  const cookies = await context.cookies()
  assert.ok(cookies.some(({ name, httpOnly, secure, sameSite }) => name === '__Host-mykube' && httpOnly && secure && sameSite === 'Lax'))

  await check(page, said, 'Enter a code')
  await page.goto(`${relay}/device?code=${code}`)
  assert.equal(await page.getByLabel('Code', { exact: true }).inputValue(), '', 'no link fills it in')
  await type(page, 'Code', 'AAAA-AAAA')
  await enter(page, 'button', 'Go on')
  await checkError(page, 'Code', /no such code/)
  await check(page, said, 'Error: Enter a code')
  await type(page, 'Code', code.toLowerCase().replace('-', ''))
  await enter(page, 'button', 'Go on')
  await check(page, said, 'Let this program sign in?')
  const asked = await page.getByRole('main').innerText()
  for (const text of [EMAIL, 'mykube', '127.0.0.1', 'UTC']) assert.ok(asked.includes(text), `${text} in ${asked}`)
  await enter(page, 'button', 'Confirm')
  await check(page, said, 'Confirmed')

  // The program asks every few seconds, and has to be in before this person signs out.
  await page.goto(`${relay}/portal/sessions`)
  const until = Date.now() + LIMIT
  while (await page.getByText('a program, by a code').count() === 0) {
    assert.ok(Date.now() < until, 'the program signs in')
    await page.waitForTimeout(500)
    await page.reload()
  }
  await page.goto(`${relay}/portal/`)
  await check(page, said, 'Your account')
  await program(context, page, said)
  await page.goto(`${relay}/portal/sessions`)
  await check(page, said, 'Your sign-ins')
  assert.equal(await page.getByText('(this one)').count(), 1)
  await page.goto(`${relay}/portal/none`)
  await check(page, said, 'There is no such page')
  await page.goto(`${relay}/portal/`)
  await enter(page, 'button', 'Sign out')
  await check(page, said, 'Sign in')
  assert.match(await page.getByRole('status').innerText(), /signed out/)
  assert.deepEqual((await context.cookies()).map(({ name }) => name), [])
  await context.close()
}

/** A program on this computer signs in: the click leads to its port, and would not where the page does not allow that. */
async function program(context, page, said) {
  const asked = []
  const listener = createServer((request, answer) => {
    asked.push(new URL(request.url, 'http://127.0.0.1'))
    // Without an icon the browser asks for one, perhaps when nobody listens any more.
    answer.setHeader('content-type', 'text/html')
    answer.end('<link rel="icon" href="data:,">You can close this page.')
  })
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address()
  const verifier = randomBytes(32).toString('base64url')
  const challenge = createHash('sha256').update(verifier).digest('base64url')
  await page.goto(`${relay}/portal/sign-in?cli_port=${port}&state=its-state&code_challenge=${challenge}`)
  await check(page, said, 'Sign in')
  await enter(page, 'link', `Continue as ${EMAIL}`)
  await check(page, said, 'Sign in a program')
  const confirm = page.url()

  // The same page without its port in `form-action`: browsers hold redirects to it, so this goes nowhere.
  const other = await context.newPage()
  const violations = []
  other.on('console', (message) => violations.push(message.text()))
  await other.route(confirm, async (route) => {
    const answer = await route.fetch()
    const headers = answer.headers()
    const policy = headers['content-security-policy']
    assert.ok(policy.includes(`form-action 'self' http://127.0.0.1:${port};`), policy)
    headers['content-security-policy'] = policy.replace(` http://127.0.0.1:${port}`, '')
    await route.fulfill({ response: answer, headers })
  })
  await other.goto(confirm)
  const blocked = other.waitForEvent('console', (message) => /form-action/.test(message.text()))
  await other.getByRole('button', { name: 'Sign in mykube' }).click({ noWaitAfter: true })
  await blocked
  assert.deepEqual(asked, [])
  await other.close()

  await enter(page, 'button', 'Sign in mykube')
  assert.equal(new URL(page.url()).port, String(port))
  const [callback] = asked
  assert.equal(callback.pathname, '/callback')
  assert.equal(callback.searchParams.get('state'), 'its-state')
  assert.ok(callback.searchParams.get('code'))
  assert.deepEqual(said, [])
  listener.close()
  listener.closeAllConnections()
}

async function withoutScripts() {
  const { context, page } = await person({ javaScriptEnabled: false })
  await page.goto(`${relay}/device`)
  await page.getByLabel('Email address').fill(EMAIL)
  await page.getByLabel('Dev secret').fill(secret)
  await page.getByRole('button', { name: 'Sign in', exact: true }).click()
  await page.getByLabel('Code', { exact: true }).fill(await daemonCode())
  await page.getByRole('button', { name: 'Go on' }).click()
  assert.ok((await page.getByRole('main').innerText()).includes('a <b>daemon</b> & "more"'), 'it is text')
  await page.getByRole('button', { name: 'Refuse' }).click()
  await page.getByRole('heading', { name: 'Refused' }).waitFor()
  await page.getByRole('link', { name: 'Sign-ins' }).click()
  await page.getByRole('button', { name: 'End all but this one' }).click()
  await page.getByText('(this one)').waitFor()
  assert.equal(await page.getByRole('heading', { level: 2 }).count(), 1, 'the program is signed out')
  await page.getByRole('button', { name: 'Sign out here' }).click()
  await page.getByText('You are signed out.').waitFor()
  await context.close()
}
